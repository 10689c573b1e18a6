"""MathNAS: what is asked, what is chosen, with scores, supernets and budgets of every kind."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

import sartor
from sartor import spaces
from sartor.choose.solve import best_within, maximise
from sartor.cli import app
from sartor.core import (
    METRICS,
    Batch,
    Budget,
    F,
    FunctionScore,
    Optimiser,
    Score,
    SearchSpace,
    Terms,
    TermScore,
    Unreachable,
    UserError,
)
from sartor.core import Path as Way
from sartor.data.images import image_set
from sartor.methods.mathnas import MathNAS
from sartor.quality.supernet import Remembered, SupernetScore, train_supernet
from sartor.runs import Run
from sartor.training.tasks import Classification
from sartor.workflow import oracle
from tests.fakes import Curved, Forest, Grid, Ragged, additive, pairwise, ratio
from tests.test_blocks import Counting
from tests.test_estimate import Saturating
from tests.test_one_idea import Columns, task_of

ACCURACY, LATENCY, ENERGY = METRICS["accuracy"], METRICS["latency_ms"], METRICS["energy_mj"]


def good(space: SearchSpace, seed: int = 4) -> TermScore:
    return TermScore(space, ACCURACY, additive(space, seed).terms())


def search(space: SearchSpace, quality: Score, budgets: list[Budget], **settings: object) -> sartor.core.Found:
    return sartor.search("mathnas", space, None, budget=budgets, objectives=[quality], **settings)  # type: ignore[arg-type]


# ---------------------------------------------------------------------- the best within limits


@pytest.mark.parametrize("space", [Grid(5, 3), Ragged()], ids=["grid", "ragged"])
@pytest.mark.parametrize("kind", ["terms", "curved"])
@pytest.mark.parametrize("form", [additive, pairwise, ratio])
def test_the_best_within_limits_is_that_of_all_networks(space: SearchSpace, kind: str, form: object) -> None:
    reward = form(space, 7).terms()  # type: ignore[operator]
    cost = additive(space, 1) if kind == "terms" else Curved(space, 1)
    every = list(space.enumerate())
    budgets = [
        Budget(cost, float(np.quantile(cost(every), 0.3))),
        Budget(
            TermScore(space, ENERGY, additive(space, 2).terms()), float(np.quantile(additive(space, 2)(every), 0.5))
        ),
    ]
    keeps = np.all([[b.feasible(c) for c in b.score(every)] for b in budgets], axis=0)
    found = best_within(space, reward, budgets, rng=np.random.default_rng(0))
    assert found.status == "optimal"
    assert reward(space, [found.architecture])[0] == pytest.approx(np.where(keeps, reward(space, every), -np.inf).max())


def test_without_a_budget_it_is_the_best_of_all() -> None:
    space = Grid(4, 3)
    found = best_within(space, good(space).terms(), [], rng=np.random.default_rng(0))
    assert found.architecture == maximise(space, good(space).terms()).architecture
    assert (found.status, dict(found.predicted)) == ("optimal", {})


def test_a_large_space_with_curved_costs_is_searched_by_linear_models() -> None:
    space = Grid(6, 4)
    cost, reward = Curved(space, 1), pairwise(space, 3).terms()
    every = list(space.enumerate())
    budget = Budget(cost, float(np.quantile(cost(every), 0.5)))
    found = best_within(space, reward, [budget], rng=np.random.default_rng(0), enumerate_below=0)
    values = reward(space, every)
    best = np.where([budget.feasible(c) for c in cost(every)], values, -np.inf).max()
    assert found.status == "verified"
    assert budget.feasible(float(cost([found.architecture])[0]))
    assert reward(space, [found.architecture])[0] >= best - 0.05 * np.ptp(values)


# ---------------------------------------------------------------------- the method


def test_block_tables_ask_as_published_and_are_right_where_the_world_adds_up() -> None:
    space = Grid(5, 4)
    quality, cost = Counting(good(space)), additive(space, 1)
    every = list(space.enumerate())
    budgets = [
        Budget(cost, float(np.quantile(cost(every), 0.3))),
        Budget(
            TermScore(space, ENERGY, additive(space, 2).terms()), float(np.quantile(additive(space, 2)(every), 0.5))
        ),
    ]
    found = search(space, quality, budgets, predictor="blocks", macs="none")
    assert len(quality.asked) == len(set(quality.asked)) == 5 * 4 - 5 + 2
    keeps = np.all([[b.feasible(c) for c in b.score(every)] for b in budgets], axis=0)
    best = np.where(keeps, good(space)(every), -np.inf).max()
    assert good(space)([found.architecture])[0] == pytest.approx(best)
    assert found.extras["predicted"] == pytest.approx(best)
    assert found.extras["program"] == "optimal"
    assert found.winner == found.argmax


def test_more_contexts_are_random_and_asked_once_each() -> None:
    space, quality = Grid(5, 3), Counting(good(Grid(5, 3)))
    search(space, quality, [Budget(additive(space, 1), 8.0)], predictor="blocks", macs="none", contexts=6)
    assert 1 + 10 < len(quality.asked) == len(set(quality.asked)) <= 1 + 6 * 11


def test_the_estimate_spends_its_queries_and_what_was_asked_decides() -> None:
    space = Grid(6, 4)
    quality, cost = Counting(Saturating(space)), additive(space, 1)
    every = list(space.enumerate())
    budget = Budget(cost, float(np.quantile(cost(every), 0.4)))
    found = search(space, quality, [budget], queries=150, members=("ridge", "pairs"))
    assert len(quality.asked) == len(set(quality.asked)) == 150
    assert all(budget.feasible(c) for c in cost(quality.asked))
    assert found.architecture in quality.asked
    assert found.extras["answer"] == pytest.approx(quality.score(quality.asked).max())
    inside = quality.score([a for a, c in zip(every, cost(every)) if budget.feasible(c)])
    assert np.mean(inside > found.extras["answer"]) < 0.005
    low, high = found.extras["interval"]
    assert low <= found.extras["predicted"] <= high


@pytest.mark.parametrize("tight", [8.0, 7.0])
def test_a_budget_that_few_networks_keep_leaves_enough_to_ask(tight: float) -> None:
    space = Grid(12, 5)
    quality, cost = Counting(good(space)), additive(space, 1)
    budget = Budget(cost, tight)  # one random network in ten thousand
    found = search(space, quality, [budget], queries=100, members=("ridge", "pairs"))
    assert len(quality.asked) == 100
    assert all(budget.feasible(c) for c in cost(quality.asked))
    best = maximise(space, good(space).terms(), [(cost.terms(), -np.inf, tight)]).value
    assert found.extras["answer"] > 0.98 * best


def test_without_the_law_blocks_are_measured_in_the_same_networks() -> None:
    space = spaces.get("nas-bench-201")
    asked = []
    for macs in ("none", "per_block"):
        quality = Counting(good(space))
        search(space, quality, [], predictor="blocks", macs=macs)
        asked.append(set(quality.asked))
    assert asked[0] == asked[1]


@pytest.mark.parametrize("space", [Grid(2, 2), Grid(3, 3), Grid(1, 4)], ids=["four", "many", "one slot"])
@pytest.mark.parametrize("admits", [1, 2, 3])
def test_small_spaces_and_few_networks_within_a_budget_end(space: SearchSpace, admits: int) -> None:
    quality, cost = good(space), additive(space, 1)
    limit = float(np.sort(cost(list(space.enumerate())))[admits - 1])
    for seed in range(3):
        found = sartor.search("mathnas", space, None, budget=Budget(cost, limit), objectives=[quality], seed=seed)
        within = [a for a in space.enumerate() if cost([a])[0] <= limit]
        assert quality([found.architecture])[0] == quality(within).max()


@pytest.mark.parametrize("space", [Grid(4, 2), Grid(12, 10)], ids=["small", "large"])
def test_a_grader_that_always_fails_is_said(space: SearchSpace) -> None:
    broken = FunctionScore(space, ACCURACY, lambda *_: float("nan"))
    with pytest.raises(UserError, match="asked about failed"):
        search(space, broken, [], queries=20)


def test_without_time_for_a_program_something_is_still_found() -> None:
    space = Grid(8, 60)
    reward = pairwise(space).terms()
    found = best_within(space, reward, [], rng=np.random.default_rng(0), seconds=1e-6)
    assert found.architecture in [space.canonical(found.architecture)]
    assert found.status == "verified"


def test_a_loss_is_made_small() -> None:
    space = Grid(5, 3)
    loss = TermScore(space, METRICS["loss"], good(space).terms())
    best = -maximise(space, loss.terms().times(-1.0)).value
    for settings in ({"predictor": "blocks", "macs": "none"}, {"queries": 80, "members": ("ridge",)}):
        found = search(space, loss, [Budget(additive(space, 1), 99.0)], **settings)
        assert loss([found.architecture])[0] == pytest.approx(best)


@pytest.mark.parametrize("settings", [{"predictor": "blocks", "macs": "none"}, {"queries": 40}])
def test_budgets_that_only_alone_can_be_met_are_refused(settings: dict[str, object]) -> None:
    space = Forest([Grid(4, 3).slots[0], Grid(4, 3).slots[1]])
    rising = TermScore(space, LATENCY, Terms(1.0, (np.arange(3.0), np.arange(3.0))))
    falling = TermScore(space, ENERGY, Terms(1.0, (2.0 - np.arange(3.0), 2.0 - np.arange(3.0))))
    with pytest.raises(Unreachable, match=r"latency <= 1.5 ms and energy <= 1.5 mJ"):
        search(space, good(space), [Budget(rising, 1.5), Budget(falling, 1.5)], **settings)


def test_nobody_to_ask_is_said() -> None:
    with pytest.raises(UserError, match="nobody to ask"):
        sartor.search("mathnas", Grid(), None, budget=additive(Grid()).at("4ms"))
    with pytest.raises(UserError, match="one score of quality"):
        sartor.search("mathnas", Grid(), None, budget=additive(Grid()).at("4ms"), objectives=[good(Grid())] * 2)


def test_published_settings_are_the_block_tables() -> None:
    assert (MathNAS.paper().predictor, MathNAS.paper().macs, MathNAS.paper().contexts) == ("blocks", "per_block", 1)


# ---------------------------------------------------------------------- the supernet as oracle


def textures() -> Classification:
    """Dark, bright, and striped either way: what an average over the image can tell apart after a convolution."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(160) % 4
    images = torch.randint(0, 40, (160, 1, 8, 8), generator=generator)
    images[labels == 1] += 120
    images[labels == 2, :, ::2] += 200
    images[labels == 3, :, :, ::2] += 200
    part = (images.to(torch.uint8), labels)
    return Classification(image_set("textures", part, part, augmentation="none"))


def test_a_supernet_orders_networks_and_answers_do_not_depend_on_what_was_asked_before(tmp_path: Path) -> None:
    space, task = Columns(), textures()
    with Run(tmp_path / "run", {}) as run:
        supernet = train_supernet(space, task, run.stage("supernet"), epochs=12, batch_size=16, lr=0.05)
        score = SupernetScore(space, supernet, task)
        archs = space.sample(np.random.default_rng(0), 6)
        first = score(archs)
        assert first.max() > 70  # four classes
        assert first.max() - first.min() > 10
        np.testing.assert_array_equal(score(archs[::-1])[::-1], first)
        kept = Remembered(score, run)
        np.testing.assert_array_equal(kept(archs), first)
        score.supernet = None  # nobody is asked again
        np.testing.assert_array_equal(kept(archs), first)
    assert [line["event"] for line in (run.stage("supernet")).journal()] == ["epoch"] * 12


def test_what_is_not_remembered_is_asked_for_several_at_a_time(tmp_path: Path) -> None:
    space, asked = Grid(4, 3), list[int]()

    class Counted(FunctionScore):
        def __call__(self, archs: Sequence[Sequence[int]]) -> F:
            asked.append(len(archs))
            return super().__call__(archs)

    score = Counted(space, METRICS["accuracy"], lambda s, arch: float(sum(arch)))
    archs = space.sample(np.random.default_rng(0), 8)
    with Run(tmp_path / "run", {}) as run:
        kept = Remembered(score, run, at_once=3)
        kept(archs[:1])
        np.testing.assert_array_equal(kept([*archs, archs[2]]), [sum(arch) for arch in (*archs, archs[2])])
        new = len(set(archs)) - 1
    assert asked == [1, *[3] * (new // 3), *([new % 3] if new % 3 else [])]


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_a_killed_supernet_ends_with_the_same_weights(tmp_path: Path, optimiser: Optimiser) -> None:
    class Stops(Classification):
        left = 7

        def loss(self, net: Callable[..., torch.Tensor], batch: Batch) -> torch.Tensor:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            return super().loss(net, batch)

    space, task, settings = Columns(), textures(), {"epochs": 4, "batch_size": 32, "optimiser": optimiser}
    with Run(tmp_path / "whole", {}) as run:
        whole = train_supernet(space, task, run, **settings)
        journal = run.journal()
    with Run(tmp_path / "killed", {}) as run:
        run.checkpoint_seconds = 0
        with pytest.raises(KeyboardInterrupt):
            train_supernet(space, Stops(task.data), run, **settings)
    with Run(tmp_path / "killed", {}) as run:
        resumed = train_supernet(space, task, run, **settings)
        assert run.journal() == journal
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values()))


def test_spaces_say_what_trains_them() -> None:
    assert [spaces.get(name).optimiser for name in ("mobilenet", "supervit", "supertransformer")] == [
        "sgd",
        "adamw",
        "adamw",
    ]
    assert spaces.get("supervit").restrict({0: [1]}).optimiser == "adamw"


def test_only_the_drawn_path_is_trained(tmp_path: Path) -> None:
    space, task = Columns(), task_of("columns")
    with Run(tmp_path / "run", {}) as run:
        torch.manual_seed(run.torch_seed("weights"))
        before = space.supernet().state_dict()  # type: ignore[attr-defined]
        after = train_supernet(space, task, run, epochs=1, batch_size=task.length("train"), lr=0.1)
        (path,) = space.sample(run.rng("paths", 0), 1)
    on = {id(p) for module in after.modules_on(path) for p in module.parameters()}
    for name, parameter in after.named_parameters():
        assert torch.equal(parameter, before[name]) != (id(parameter) in on), name
    assert after(*space.inputs(2), path=Way(path)).shape == (2, 4)


def test_a_function_in_a_file_grades_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "grader.py"
    file.write_text("def grade(space, arch):\n    return 90.0 - sum(abs(k - 2) for k in arch)\n")
    words = [
        "search",
        "mathnas",
        "--space",
        "mobilenet:tiny?layers=3&resolution=8&channels=1",
        "--run",
        "found",
        "--json",
    ]
    words += ["--oracle", f"{file}:grade", "--set", "queries=40", "--set", "members=[ridge,pairs]"]
    app([*words, "--budget", "5MMACs"], standalone_mode=False)
    found = json.loads(capsys.readouterr().out)
    assert found["extras"]["answer"] == 90.0 - sum(abs(k - 2) for k in found["architecture"])
    assert found["extras"]["answer"] >= 88.0
    assert not (tmp_path / "found" / "search" / "supernet").exists()


def test_a_grader_that_fails_is_told_in_a_line_and_can_be_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file, calls = tmp_path / "grader.py", tmp_path / "calls"
    body = (
        "open('calls', 'a').write('.')\n    if len(open('calls').read()) == 9:\n        raise ValueError('no disk')\n"
    )
    file.write_text(f"def grade(space, arch):\n    {body}    return 90.0 - sum(arch)\n")
    words = ["search", "mathnas", "--space", "mobilenet:tiny?layers=3&resolution=8&channels=1", "--run", "found"]
    words += ["--oracle", f"{file}:grade", "--set", "queries=40", "--set", "members=[ridge,pairs]"]
    with pytest.raises(UserError, match=r"grader.py:grade, line 4 raised ValueError \(no disk\) for \[\d"):
        app([*words, "--budget", "5MMACs"], standalone_mode=False)
    file.write_text(f"def grade(space, arch):  # mended\n    {body.split('if')[0]}\n    return 90.0 - sum(arch)\n")
    app([*words, "--budget", "5MMACs"], standalone_mode=False)
    assert len(calls.read_text()) <= 42  # forty answers, and the one that failed
    file.write_text("def grade(space, arch):\n    return 'good'\n")
    with pytest.raises(UserError, match="return a number"):
        oracle(f"{file}:grade", spaces.get("mobilenet:tiny"))[0]([(0,) * 9])


def test_what_is_counted_can_be_typed_as_a_budget_from_python() -> None:
    space = spaces.get("mobilenet:tiny?layers=3")
    quality = FunctionScore(space, METRICS["accuracy"], lambda s, arch: 90.0 - sum(arch))
    settings = {"queries": 20, "members": ("ridge",)}
    found = sartor.search("mathnas", space, None, budget="5MMACs", objectives=[quality], **settings)
    assert found.feasible
    with pytest.raises(UserError, match="nothing that predicts latency_ms"):
        sartor.search("mathnas", space, None, budget="5ms", objectives=[quality], **settings)


def test_a_limit_that_every_network_keeps_is_said(caplog: pytest.LogCaptureFixture) -> None:
    space = spaces.get("mobilenet:tiny?layers=3")
    quality = FunctionScore(space, METRICS["accuracy"], lambda s, arch: 90.0 - sum(arch))
    with caplog.at_level("WARNING", "sartor"):
        sartor.search("mathnas", space, None, budget="5GMACs", objectives=[quality], queries=20, members=("ridge",))
    assert "the limit decides nothing" in caplog.text


def test_a_grader_that_is_not_there_is_said(tmp_path: Path) -> None:
    space = spaces.get("mobilenet:tiny?layers=3")
    file = tmp_path / "grader.py"
    with pytest.raises(UserError, match=r"FILE\.py:FUNCTION"):
        oracle("grader.py", space)
    with pytest.raises(UserError, match="there is no file"):
        oracle(f"{file}:grade", space)
    file.write_text("import nowhere_at_all\n")
    with pytest.raises(UserError, match="cannot be imported"):
        oracle(f"{file}:grade", space)
    file.write_text("grade = 3\n")
    with pytest.raises(UserError, match="no function 'grade'"):
        oracle(f"{file}:grade", space)
    with pytest.raises(UserError, match="a method that asks"):
        app(["search", "lightnas", "--space", "mobilenet:tiny", "--oracle", f"{file}:grade"], standalone_mode=False)
