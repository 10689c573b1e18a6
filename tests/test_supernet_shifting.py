"""SPOS and Supernet Shifting: what moves, what stays, transfer, fronts, limits, resuming."""

from __future__ import annotations

import copy
import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import sartor
from sartor import spaces, tasks
from sartor.cli import app
from sartor.core import METRICS, Budget, FunctionScore, Unreachable, UserError
from sartor.core.task import Path as Route
from sartor.methods.supernet_shifting import Shifting, SupernetShifting
from sartor.quality.order import kendall
from sartor.quality.supernet import SupernetScore, stratified
from sartor.quality.transfer import classifier, load
from sartor.runs import Run, read_lines
from sartor.spaces.complexity import Complexity
from sartor.training.tasks import Classification, smoothed

SPACE = spaces.get("shufflenet:tiny?width=0.5")
QUICK = {"epochs": 1, "iterations": 3, "population": 6, "keep": 2, "valid_batches": 1, "calibration": 1}
SHIFT = {**QUICK, "samples": 64}


@pytest.fixture(scope="module")
def task():
    return tasks.get("digits")


@pytest.fixture(scope="module")
def limit():
    macs = Complexity(SPACE, "macs")
    return macs.at(f"{np.median(macs(list(SPACE.enumerate()))):.0f}MACs")


def shifting(task, run, **settings) -> Shifting:
    torch.manual_seed(0)
    supernet = SPACE.supernet()
    method = SupernetShifting(**{**SHIFT, **settings})
    return Shifting(supernet, SupernetScore(SPACE, supernet, task, calibration=1, limit=1), task, method, run, 0)


def batches_of(moving, visit, members):
    count, size = moving._drawn(members)
    seed = moving.run.torch_seed("shift") % 2**32
    return moving.task.batches("train", size=size, seed=seed, epoch=visit, limit=count)


def state(supernet) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in supernet.state_dict().items()}


def test_what_is_not_on_the_path_and_its_momentum_stay(task, tmp_path) -> None:
    with Run(tmp_path / "run", {}) as run:
        moving = shifting(task, run, shift_lr=0.1)
        moving.visit((0, 0, 0, 0), 0, 6, False)
        before, momentum = state(moving.supernet), {p: dict(s) for p, s in moving.w.state.items()}
        kept = {p: s["momentum_buffer"].clone() for p, s in momentum.items()}
        moving.visit((1, 2, 3, 1), 1, 6, False)
    on = {id(p) for module in moving.supernet.modules_on((1, 2, 3, 1)) for p in module.parameters()}
    moved = 0
    for name, parameter in moving.supernet.named_parameters():
        if id(parameter) in on:
            moved += not torch.equal(parameter, before[name])
        else:
            assert torch.equal(parameter, before[name])
            if parameter in kept:
                assert torch.equal(moving.w.state[parameter]["momentum_buffer"], kept[parameter])
    assert moved > 10


def test_an_update_of_a_generation_is_by_the_mean_gradient(task, tmp_path) -> None:
    archs = [(0, 1, 2, 3), (3, 1, 0, 0)]
    with Run(tmp_path / "run", {}) as run:
        moving = shifting(task, run, schedule="per_iteration", shift_lr=0.1)
        wanted = {name: torch.zeros_like(p) for name, p in moving.supernet.named_parameters()}
        batches = 0
        for visit, arch in enumerate(archs):
            torch.manual_seed(run.torch_seed("dropout", visit))
            for batch in batches_of(moving, visit, 2):
                moving.supernet.train()
                loss = task.loss(partial(moving.supernet, path=Route(arch)), batch)
                named = dict(moving.supernet.named_parameters())
                for name, grad in zip(named, torch.autograd.grad(loss, list(named.values()), allow_unused=True)):
                    wanted[name] += 0 if grad is None else grad
                batches += 1
        moving.visit(archs[0], 0, 2, False)
        got = {name: p.grad for name, p in moving.supernet.named_parameters()}
        before = state(moving.supernet)
        assert any(grad is not None for grad in got.values())
        said = moving.visit(archs[1], 1, 2, True)
    graded = SPACE.supernet()
    graded.load_state_dict(before)  # the weights that graded the first
    assert said == SupernetScore(SPACE, graded.eval(), task, calibration=1, limit=1)([archs[1]])[0]
    for name, parameter in moving.supernet.named_parameters():
        step = before[name] - parameter
        decay = 4e-5 * before[name] if parameter.ndim > 1 and torch.any(wanted[name]) else 0
        torch.testing.assert_close(step / 0.1, wanted[name] / batches + decay, atol=2e-4, rtol=2e-3)
        assert parameter.grad is None


@pytest.mark.parametrize("revisit", [True, False])
def test_without_a_rate_it_is_spos(task, limit, revisit) -> None:
    plain = sartor.search("spos", SPACE, task, budget=limit, seed=3, **QUICK)
    still = sartor.search("supernet-shifting", SPACE, task, budget=limit, seed=3, shift_lr=0, revisit=revisit, **SHIFT)
    assert still.architecture == plain.architecture
    assert still.extras["score"] == plain.extras["score"]
    assert still.extras["graded"] == plain.extras["graded"]


@pytest.mark.parametrize(
    "settings",
    [{}, {"schedule": "per_iteration"}, {"revisit": True, "per": "architecture"}],
    ids=["per_batch", "per_iteration", "revisiting"],
)
def test_a_killed_search_ends_the_same_weights_included(task, limit, tmp_path, monkeypatch, settings) -> None:
    options = {"budget": limit, **SHIFT, "shift_lr": 0.05, **settings}
    whole = sartor.search("supernet-shifting", SPACE, task, run=tmp_path / "whole", **options)
    visits, visit = [], Shifting.visit

    def dies(self, *words):
        visits.append(words)
        if len(visits) in (1, 4, 9):
            raise KeyboardInterrupt
        return visit(self, *words)

    monkeypatch.setattr(Shifting, "visit", dies)
    monkeypatch.setattr(Run, "checkpoint_seconds", 0)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            sartor.search("supernet-shifting", SPACE, task, run=tmp_path / "killed", **options)
    again = sartor.search("supernet-shifting", SPACE, task, run=tmp_path / "killed", **options)
    assert again.architecture == whole.architecture
    assert again.extras == whole.extras
    files = [tmp_path / name / "search" / "shifted.safetensors" for name in ("whole", "killed")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_every_network_asked_about_keeps_its_limits(task, limit, tmp_path) -> None:
    asked = []
    quality = FunctionScore(SPACE, METRICS["accuracy"], lambda s, arch: asked.append(arch) or float(sum(arch)))
    found = sartor.search("spos", SPACE, None, budget=limit, objectives=[quality], **QUICK)
    assert np.all(limit.score(asked) <= limit.limit)
    assert len(asked) == len(set(asked)) == found.extras["graded"] == 6 + 2 * 4
    assert sum(found.architecture) == max(map(sum, asked))


def test_a_cost_is_asked_about_a_generation_at_a_time_and_with_several_objectives_half_stay(tmp_path) -> None:
    asked, options = [], {**QUICK, "keep": 6}
    quality = FunctionScore(SPACE, METRICS["accuracy"], lambda s, arch: float(sum(arch)))

    class Cost(FunctionScore):
        def __call__(self, archs):
            asked.append(list(archs))
            return super().__call__(archs)

    cost = Cost(SPACE, METRICS["energy_mj"], lambda s, arch: float(arch[0]))
    sartor.search("spos", SPACE, None, budget=[], objectives=[quality, cost], **options)
    assert [len(some) for some in asked[:3]] == [6, 3, 3]
    with pytest.raises(UserError, match="leaves no child"):
        sartor.search("spos", SPACE, None, budget=[], objectives=[quality], **options)


def test_limits_that_exclude_one_another_are_seen_before_a_supernet_is_trained(task, tmp_path) -> None:
    macs = Complexity(SPACE, "macs")
    costs = macs(list(SPACE.enumerate()))
    rest = FunctionScore(SPACE, METRICS["energy_mj"], lambda s, arch: float(costs.max() - macs([arch])[0]))
    low, high = np.quantile(costs, [0.1, 0.9])
    budgets = [Budget(macs, float(low)), Budget(rest, float(costs.max() - high))]
    with pytest.raises(Unreachable, match="together"):
        sartor.search("spos", SPACE, task, budget=budgets, run=tmp_path / "r", **QUICK)
    assert not (tmp_path / "r" / "search" / "supernet").exists()


def test_failures_end_no_search_within_a_generation(limit, tmp_path) -> None:
    asked = []

    def some_fail(space, arch) -> float:
        asked.append(arch)
        return float("nan") if len(asked) < 6 else float(sum(arch))

    quality = FunctionScore(SPACE, METRICS["accuracy"], some_fail)
    sartor.search("spos", SPACE, None, budget=limit, objectives=[quality], run=tmp_path / "r", **QUICK)
    lines = read_lines(tmp_path / "r" / "search" / "journal.jsonl")
    assert [line["generation"] for line in lines if line["event"] == "generation"] == [0, 1, 2]
    assert len(asked) == 6 + 2 * 4


def test_draws_spread_a_cost_evenly() -> None:
    space = spaces.get("shufflenet")
    macs = Complexity(space, "macs")
    draw, rng = stratified(space, macs), np.random.default_rng(0)
    spread, plain = (macs(archs) for archs in (draw(rng, 400), space.sample(rng, 400)))
    assert 291e6 < spread.min() < 300e6  # three deviations below the mean, as in the published 290 to 360
    assert 353e6 < spread.max() < 363e6
    counts, _ = np.histogram(spread, bins=7, range=(291.7e6, 362.7e6))
    assert counts.min() > 30
    assert spread.std() > 1.4 * plain.std()


@pytest.mark.parametrize("revisit", [True, False])
def test_a_generation_s_update_is_by_the_mean_of_those_it_visits(task, limit, tmp_path, monkeypatch, revisit) -> None:
    told, visit = [], Shifting.visit

    def spied(self, arch, number, members, last):
        told.append((members, last))
        return visit(self, arch, number, members, last)

    monkeypatch.setattr(Shifting, "visit", spied)
    options = {**SHIFT, "schedule": "per_iteration", "per": "generation", "revisit": revisit}
    sartor.search("supernet-shifting", SPACE, task, budget=limit, **options)
    sizes = [6, *[6 if revisit else 4] * 2]
    assert [members for members, _ in told] == [size for size in sizes for _ in range(size)]
    assert [i + 1 for i, (_, last) in enumerate(told) if last] == list(np.cumsum(sizes))


def test_a_shift_that_diverges_is_an_error_that_names_its_rate(task, limit) -> None:
    with pytest.raises(UserError, match="shift_lr=1e"):
        sartor.search("supernet-shifting", SPACE, task, budget=limit, shift_lr=1e30, **SHIFT)


def test_a_front_is_of_what_the_last_weights_say(task, tmp_path) -> None:
    found = sartor.search(
        "supernet-shifting", SPACE, task, budget=[], objectives=[Complexity(SPACE, "macs")], run=tmp_path / "r", **SHIFT
    )
    supernet = SPACE.supernet()
    load(supernet, tmp_path / "r" / "search" / "shifted.safetensors")
    score = SupernetScore(SPACE, supernet.eval(), task, calibration=1, limit=1)
    points = found.extras["front"]
    assert [p["quality"] for p in points] == list(score([p["architecture"] for p in points]))


# ---------------------------------------------------------------------- transfer


def test_a_transferred_supernet_differs_in_its_classifier_alone(task, limit, tmp_path) -> None:
    sartor.search("spos", SPACE, task, budget=limit, run=tmp_path / "old", **QUICK)
    old = load_file(tmp_path / "old" / "search" / "supernet.safetensors")
    method = SupernetShifting(**{**SHIFT, "source": str(tmp_path / "old")})
    other = spaces.get("shufflenet:tiny?width=0.5&classes=7")
    seven = tasks.get("digits")
    seven.classes = 7
    with Run(tmp_path / "new", {}) as run:
        moving = method.grader(other, [], run, seven)
    new = moving.supernet.state_dict()
    apart = [name for name in new if new[name].shape != old[name].shape or not torch.equal(new[name], old[name])]
    assert apart == classifier(moving.supernet, 7)
    assert new[apart[0]].shape[0] == 7


def test_a_warm_up_trains_the_classifier_alone(task, limit, tmp_path) -> None:
    sartor.search("spos", SPACE, task, budget=limit, run=tmp_path / "old", **QUICK)
    states = []
    for steps in (0, 5):
        method = SupernetShifting(**{**SHIFT, "source": str(tmp_path / "old"), "warmup": steps})
        with Run(tmp_path / f"new{steps}", {}) as run:
            supernet = method.grader(SPACE, [], run, described(task, "others")).supernet
            states.append({name: p.detach().clone() for name, p in supernet.named_parameters()})
    apart = [name for name in states[0] if not torch.equal(states[0][name], states[1][name])]
    assert apart == classifier(supernet, 10)


def described(task, name: str):
    """The same examples as data of another name."""
    other = copy.copy(task)
    other.describe = lambda: {**task.describe(), "data": name}
    return other


def test_on_its_own_data_a_supernet_keeps_its_classifier(task, limit, tmp_path) -> None:
    sartor.search("spos", SPACE, task, budget=limit, run=tmp_path / "old", **QUICK)
    old = load_file(tmp_path / "old" / "search" / "supernet.safetensors")
    split = Classification(task.data, split_seed=1)
    for data, same in ((task, True), (smoothed(task, 0.1), True), (split, True), (described(task, "others"), False)):
        shutil.rmtree(tmp_path / f"new{same}", ignore_errors=True)
        method = SupernetShifting(**{**SHIFT, "source": str(tmp_path / "old")})
        with Run(tmp_path / f"new{same}", {}) as run:
            new = method.grader(SPACE, [], run, data).supernet.state_dict()
        assert all(torch.equal(new[name], old[name]) for name in old) is same
    shutil.copytree(tmp_path / "newFalse", tmp_path / "begun" / "search")  # not a step was made on the others
    again = SupernetShifting(**{**SHIFT, "source": str(tmp_path / "begun")})
    assert again.replaced(described(task, "others")) == 10
    options = {**SHIFT, "source": str(tmp_path / "old"), "warmup": 5}
    with pytest.raises(UserError, match="warmup=5 is of a new classifier"):
        sartor.search("supernet-shifting", SPACE, task, budget=limit, **options)


def test_without_calibration_what_was_said_at_the_visit_counts(task, limit, tmp_path) -> None:
    options = {**SHIFT, "shift_lr": 0.05, "calibration": 0, "revisit": False}
    found = sartor.search("supernet-shifting", SPACE, task, budget=limit, run=tmp_path / "r", **options)
    said = [line for line in read_lines(tmp_path / "r" / "search" / "journal.jsonl") if line["event"] == "generation"]
    assert found.extras["score"] == said[-1]["best"]


def test_a_supernet_of_another_space_or_none_is_refused(task, limit, tmp_path) -> None:
    sartor.search("spos", SPACE, task, budget=limit, run=tmp_path / "old", **QUICK)
    wider = spaces.get("shufflenet:tiny")
    for space, source, words in ((wider, "old", "another space"), (SPACE, "none", "no run")):
        with pytest.raises(UserError, match=words):
            sartor.search("supernet-shifting", space, task, budget="1GMACs", source=str(tmp_path / source), **SHIFT)


# ---------------------------------------------------------------------- several objectives, and the command line


def test_a_front_has_what_none_beats_and_the_most_accurate_wins(task, tmp_path) -> None:
    macs, params = Complexity(SPACE, "macs"), Complexity(SPACE, "params")
    found = sartor.search(
        "supernet-shifting", SPACE, task, budget=[], objectives=[macs, params], run=tmp_path / "run", **SHIFT
    )
    points = found.extras["front"]
    rows = np.array([[-p["quality"], p["macs"], p["params"]] for p in points])
    assert all(not any((o <= r).all() and (o < r).any() for o in rows) for r in rows)
    assert list(found.architecture) == max(points, key=lambda p: p["quality"])["architecture"]
    assert found.winner.predicted["macs"] == macs([found.architecture])[0]
    told = json.loads((tmp_path / "run" / "search" / "front.json").read_text())
    assert [point["cost"] for point in told["front"]] == sorted(p["macs"] for p in points)


def test_what_is_no_classifier_is_not_replaced() -> None:
    with pytest.raises(UserError, match="linear layer over the classes"):
        classifier(spaces.get("supertransformer").supernet(), 10)


def test_a_window_takes_the_supernet_of_its_space_and_gives_it_back(task, limit, tmp_path) -> None:
    window = SPACE.restrict({0: [1, 2]})
    sartor.search("spos", window, task, budget="1GMACs", run=tmp_path / "window", **QUICK)
    found = sartor.search("supernet-shifting", SPACE, task, budget=limit, source=str(tmp_path / "window"), **SHIFT)
    assert found.extras["images"]["supernet"] == 0


def run_cli(*words: str):
    return CliRunner().invoke(app, list(words))


def test_the_command_line_measures_objectives_and_transfers(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    quick = [word for key, value in QUICK.items() for word in ("--set", f"{key}={value}")]
    common = ["--space", "shufflenet:tiny?width=0.5", "--data", "digits", "--store", "m.db", "--json"]
    first = run_cli(
        "search", "spos", *common, *quick, "--objective", "latency_ms", "--predictor", "measured", "--run", "old"
    )
    assert first.exit_code == 0, first.output
    said = json.loads(first.stdout)
    assert all(point["latency_ms"] > 0 and "accuracy" in point for point in said["front"])
    member = json.loads((tmp_path / "old" / said["front"][0]["file"]).read_text())
    assert member["architecture"] == said["front"][0]["architecture"]
    assert said["landing"] is None
    assert said["score"]["accuracy"] > 0
    assert said["predicted"]["latency_ms"] > 0
    second = run_cli(
        "search", "supernet-shifting", *common, *quick, "--set", "samples=32", "--budget", "1GMACs", "--from", "old",
        "--run", "new",
    )  # fmt: skip
    assert second.exit_code == 0, second.output
    wider = [word.replace("width=0.5", "width=1") for word in common]
    apart = run_cli("search", "supernet-shifting", *wider, *quick, "--budget", "1GMACs", "--from", "old")
    assert "width 0.5 (here: 1.0)" in str(apart.exception)
    nothing = run_cli("search", "supernet-shifting", *common, *quick, "--budget", "1GMACs", "--from", "no-run")
    assert "no-run is no run" in str(nothing.exception)
    assert json.loads(second.stdout)["extras"]["images"]["supernet"] == 0
    third = run_cli("bench", "order", "new", "--data", "digits", "--epochs", "1", "--networks", "10", "--json")
    assert third.exit_code == 0, third.output


# ---------------------------------------------------------------------- order


def test_tau_is_kendall_s_and_leaves_out_what_is_not_known() -> None:
    true = np.array([1.0, 2.0, 3.0, np.nan, 5.0])
    found = kendall(np.array([1.0, 2.0, 4.0, 9.0, 3.0]), true)
    assert found["tau"] == pytest.approx(4 / 6)  # of six pairs one is the wrong way round
    assert found["low"] <= found["tau"] <= found["high"]
    assert found["networks"] == 4
    assert kendall(np.ones(5), true)["tau"] is None


def test_order_is_told_before_and_after_with_a_table_and_with_trainings(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    quick = [word for key, value in SHIFT.items() for word in ("--set", f"{key}={value}")]
    space = "nas-bench-macro?width=0.1&resolution=8&channels=1"
    common = ["--data", "digits", "--json"]
    macs = Complexity(spaces.get(space), "macs")
    archs = list(macs.space.enumerate())
    limit = float(np.median(macs(archs)))
    budget = f"{limit / 1e6}MMACs"
    words = ["search", "supernet-shifting", "--space", space, *common, *quick, "--budget", budget, "--run", "s"]
    assert run_cli(*words).exit_code == 0
    rows = [f"{''.join(map(str, arch))},{cost / 1e4}" for arch, cost in zip(archs, macs(archs))]
    (tmp_path / "t.csv").write_text("\n".join(["arch,mean_acc", *rows]))
    by_table = run_cli("bench", "order", "s", *common, "--table", "t.csv", "--accuracy", "mean_acc", "--networks", "12")
    assert by_table.exit_code == 0, by_table.output
    said = json.loads(by_table.stdout)
    assert [row["supernet"] for row in said["rows"]] == ["before", "after"]
    within = [cost / 1e4 for cost in macs(archs) if cost <= limit]
    assert said["points"]["true of the best"] == pytest.approx(sorted(within, reverse=True)[:10])
    assert max(said["points"]["true"]) <= limit / 1e4
    assert run_cli("report", said["run"], "s", "--out", "page.html").exit_code == 0
    page = (tmp_path / "page.html").read_text()
    assert "How well the order of networks is kept" in page
    assert "before the search" in page
    trained = run_cli("bench", "order", "s", *common, "--epochs", "1", "--networks", "10", "--best", "3")
    assert trained.exit_code == 0, trained.output
    points = json.loads(trained.stdout)["points"]
    assert sorted(points["true of the best"]) == sorted(points["true"])[-3:]

    file = tmp_path / "s" / "search" / "supernet.safetensors"  # as another run's, whose classifier is new
    save_file(load_file(file), file)
    left = run_cli("bench", "order", "s", *common, "--epochs", "1", "--networks", "10", "--best", "3", "--run", "new")
    assert [row["supernet"] for row in json.loads(left.stdout)["rows"]] == ["after"]
