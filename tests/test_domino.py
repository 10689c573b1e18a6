"""Domino: what it finds by what it is told, that a killed search ends the same, and what its proxies learn from."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from onnxruntime import InferenceSession
from safetensors.torch import load_file, save_file

import sartor
from sartor import spaces, tasks
from sartor.cli import app
from sartor.cli.compress import SLOWER, WORDS
from sartor.core import METRICS, Budget, FunctionScore, UserError
from sartor.methods import METHODS, domino
from sartor.quality.trained import TrainedScore
from sartor.runs import Run, read_json
from sartor.spaces.channels import Channels
from sartor.spaces.complexity import Complexity
from sartor.spaces.grafts import Grafts
from sartor.spaces.models import model
from sartor.training.recipe import Recipe
from sartor.training.tasks import for_search, of_classes
from tests.fakes import Grid, additive
from tests.test_grafts import SMALL

QUICK = {"networks": 12, "epochs": 2, "batch_size": 64}


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Grafts:
    path = tmp_path_factory.mktemp("models") / "mine.py"
    path.write_text(SMALL)
    torch.manual_seed(0)
    save_file(model(f"{path}:small").make().state_dict(), path.with_suffix(".safetensors"))
    return Grafts(f"{path}:small", weights=str(path.with_suffix(".safetensors")), channels=1, resolution=8)


def budget(space: Grafts, share: float) -> Budget:
    macs = Complexity(space, "macs")
    return Budget(macs, share * float(macs([space.unchanged])[0]))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"proxy": "tuned", "networks": 8, "epochs": 1, "predictor": "calibrated", "targets": 3, "target_epochs": 1},
        {
            "proxy": "scratch",
            "networks": 8,
            "epochs": 1,
            "classes": 3,
            "predictor": "pair",
            "targets": 2,
            "target_epochs": 1,
        },
    ],
)
def test_the_budget_is_kept_whoever_grades(space, tmp_path, settings) -> None:
    limit = budget(space, 0.8)
    with Run(tmp_path / "run", {"test": 1}) as run:
        found = sartor.search("domino", space, tasks.get("digits"), budget=limit, run=run, **{**QUICK, **settings})
    assert found.feasible
    assert found.winner.status in ("optimal", "within")
    front = read_json(tmp_path / "run" / "search" / "front.json")["front"]
    costs, qualities = ([point[key] for point in front] for key in ("cost", "quality"))
    assert costs == sorted(costs)
    assert qualities == sorted(qualities)
    assert qualities[-1] == pytest.approx(found.extras["predicted"])


def test_a_killed_search_ends_the_same_and_pays_nothing_twice(space, tmp_path, monkeypatch) -> None:
    task, limit = tasks.get("digits"), budget(space, 0.9)
    with Run(tmp_path / "whole", {"test": 1}) as run:
        whole = sartor.search("domino", space, task, budget=limit, run=run, **QUICK)
    asked, answer = [], domino.SupernetScore._one

    def dies(self, arch):
        asked.append(arch)
        if len(asked) == 5:
            raise KeyboardInterrupt
        return answer(self, arch)

    monkeypatch.setattr(domino.SupernetScore, "_one", dies)
    for _ in range(2):
        try:
            with Run(tmp_path / "killed", {"test": 1}) as run:
                again = sartor.search("domino", space, task, budget=limit, run=run, **QUICK)
        except KeyboardInterrupt:
            continue
    assert again.architecture == whole.architecture
    assert len(asked) == len(set(asked)) + 1


@pytest.mark.parametrize("seed", range(10))
def test_evolution_finds_what_looking_at_all_of_them_finds(seed, monkeypatch) -> None:
    """Must hold of 2^17 networks: at least 99 % of the best."""
    space = Grid(17, 2)
    rng = np.random.default_rng(seed)
    alone, pairs = rng.normal(size=17), 0.2 * rng.normal(size=(17, 17))
    quality = FunctionScore(
        space,
        METRICS["accuracy"],
        lambda s, a: float(70 + np.tanh((np.array(a) @ alone + (np.array(a) @ pairs) @ a) / 4)),
    )
    cost = additive(space, 1)
    limit = Budget(cost, float(np.median(cost(space.sample(np.random.default_rng(0), 100)))))
    monkeypatch.setattr(domino, "EVERY", 0)
    found = sartor.search(
        "domino", space, None, budget=limit, objectives=[quality], seed=seed, population=40, keep=10, iterations=40
    )
    every = np.array(list(space.enumerate()), dtype=float)
    values = np.tanh((every @ alone + ((every @ pairs) * every).sum(1)) / 4)
    kept = cost([tuple(map(int, row)) for row in every]) <= limit.limit
    best, worst = values[kept].max(), values[kept].min()
    assert found.feasible
    assert (found.extras["predicted"] - 70 - worst) / (best - worst) >= 0.99


def test_what_makes_no_block_cheaper_is_no_candidate(space) -> None:
    """A predictor that errs in favour of a dearer block must not choose it."""
    macs = Complexity(space, "macs")
    whole, *alone = macs([space.unchanged, (1, 0, 0), (2, 0, 0), (3, 0, 0), (0, 2, 0)])
    dearer = [cost >= whole for cost in alone]
    assert any(dearer)
    favours = FunctionScore(space, METRICS["accuracy"], lambda s, a: 50.0 + sum(k in (2, 3) for k in a))
    found = sartor.search("domino", space, None, budget=Budget(macs, 2 * whole), objectives=[favours])
    useless = found.extras["useless"]
    for candidate, costs in zip((1, 2, 3), dearer):
        assert (space.slots[0].candidates[candidate] in useless["3"]) == costs
    for slot, choice in zip(space.slots, found.architecture):
        assert slot.candidates[choice] not in useless[slot.name]


def test_a_part_of_a_space_is_searched_as_any_other(space) -> None:
    part = space.restrict({1: [0, 4], 2: [0, 4]})
    macs = Complexity(part, "macs")
    favours = FunctionScore(part, METRICS["accuracy"], lambda s, a: 50.0 + sum(a))
    found = sartor.search("domino", part, None, budget=Budget(macs, 1e9), objectives=[favours])
    assert found.architecture == part.canonical((3, 1, 1))


def test_trainings_begin_where_they_are_told_to(space) -> None:
    task = for_search(tasks.get("digits"))
    recipe = Recipe(epochs=1, lr=1e-6, warmup_epochs=0)
    fresh = TrainedScore(space, task, recipe, seed=1)
    begun = TrainedScore(space, task, recipe, start=space.tuned, seed=1)
    archs = [space.unchanged, (1, 1, 1)]
    np.testing.assert_array_equal(fresh(archs), fresh(archs))
    assert begun(archs).shape == (2,)
    wild = TrainedScore(space, task, Recipe(epochs=1, lr=1e30, warmup_epochs=0), seed=1)
    assert np.isnan(wild([space.unchanged])).all()


def test_tasks_of_few_classes() -> None:
    task = tasks.get("digits")
    few = of_classes(for_search(task), [3, 7])
    for split in ("train", "valid"):
        assert 0 < few.length(split) < task.length(split)
        assert {int(y) for _, labels in few.batches(split, size=32, seed=0, epoch=0) for y in labels} == {3, 7}
    assert few.describe()["content"] != task.describe()["content"]
    with pytest.raises(UserError, match="test split"):
        few.length("test")
    with pytest.raises(UserError, match="no images of the labels"):
        of_classes(task, [12])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"predictor": "pair"}, "targets=10"),
        ({"targets": 3}, "give targets=0"),
        ({"targets": 9, "networks": 8, "predictor": "pair"}, "of the networks=8"),
        ({"proxy": "tuned", "lr": 1e30, "networks": 8, "epochs": 1, "batch_size": 32}, "lower lr"),
        ({"population": 4, "keep": 4}, "leaves no child"),
        ({"classes": 10, "networks": 8, "epochs": 1}, "give fewer"),
    ],
)
def test_what_is_refused(space, settings, says) -> None:
    with pytest.raises(UserError, match=says):
        sartor.search("domino", space, tasks.get("digits"), budget=budget(space, 0.8), **settings)


def test_it_needs_a_budget_and_data(space) -> None:
    with pytest.raises(UserError, match="needs a budget"):
        METHODS["domino"].of({}).check(space, [])
    with pytest.raises(UserError, match="grades networks on data"):
        sartor.search("domino", space, None, budget=budget(space, 0.8))
    alone = Channels(spaces.get("mobilenet:tiny"), (1,) * 9)
    limit = Budget(Complexity(alone, "macs"), 1e12)
    for proxy in ("supernet", "tuned"):
        with pytest.raises(UserError, match="proxy=scratch"):
            sartor.search("domino", alone, tasks.get("digits"), budget=limit, proxy=proxy)


def test_of_a_few_networks_all_are_graded(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    block = "nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 1, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)"
    (tmp_path / "two.py").write_text(
        f"from torch import nn\ndef two():\n    return nn.Sequential({block}, nn.Flatten(), nn.Linear(4, 10))\n"
    )
    space = Grafts("two.py:two", channels=1, resolution=8)
    assert space.size < 4
    limit = Budget(Complexity(space, "macs"), 1e12)
    found = sartor.search("domino", space, tasks.get("digits"), budget=limit, epochs=1, networks=8)
    assert found.feasible


def test_a_given_network_is_compressed_and_exported(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(SMALL)
    words = "compress mine.py:small --budget 0.045MMACs --run r --store sqlite:///m.db --recipe epochs=1 --json"
    settings = [word for key in ("epochs=1", "networks=10") for word in ("--set", key)]
    app([*words.split(), *settings], standalone_mode=False)
    found = json.loads(capsys.readouterr().out)
    assert found["measured_gap_percent"].keys() <= {"macs", "latency_ms"}
    assert found["predicted"]["macs"] <= 0.045e6
    assert [row["block"] for row in found["blocks"]] == ["3", "4", "5"]
    assert {row["became"] for row in found["blocks"]} <= {*WORDS.values(), SLOWER}
    assert found["speedup_measured"] == pytest.approx(found["latency_ms_before"] / found["latency_ms_after"])
    assert found["max_abs_error"] < 1e-4
    assert {"value_before", "value_after", "metric"} <= found.keys()
    session = InferenceSession(tmp_path / "r" / "export" / "export" / "network.onnx")
    (given,) = session.get_inputs()
    (answer,) = session.run(None, {given.name: np.zeros(given.shape, np.float32)})
    assert answer.shape == (1, 10)
    page = (tmp_path / "r" / "report.html").read_text()
    assert page.count("<svg") > 2
    for said in ("What became of the blocks", "Where time goes", "Pareto front"):
        assert said in page
    assert found["profile_ms"]["before"]["Conv"] > 0
    weights = tmp_path / "r" / "as-it-was" / "network.safetensors"
    again = [*words.replace("--run r", "--run again").split(), *settings]
    space = Grafts("mine.py:small", channels=1, resolution=8)
    trained = space.network(space.unchanged)
    trained.load_state_dict(load_file(weights))
    names = [f"module.{name}" for name in model("mine.py:small").make().state_dict()]  # as DataParallel has them
    torch.save(dict(zip(names, trained.state_dict().values())), tmp_path / "w.pt")
    app([*again, "--weights", "w.pt"], standalone_mode=False)
    tuned = json.loads(capsys.readouterr().out)
    assert not (tmp_path / "again" / "as-it-was").exists()  # it came with weights: they are tested as they are
    assert "of the latency, side by side" in tuned["verdict"]
    fresh = [sys.executable, "-c", "from sartor.cli import main; main()", "report", "again", "--out", "page.html"]
    subprocess.run(fresh, check=True, cwd=tmp_path)  # a process that has counted nothing yet
    assert "as it came" in (tmp_path / "page.html").read_text()
    assert tuned["value_before"] == pytest.approx(found["value_before"])
    torch.save(model("mine.py:small").make().state_dict(), tmp_path / "w.pt")
    with pytest.raises(UserError, match="weights"):
        app([*again, "--weights", "w.pt"], standalone_mode=False)
