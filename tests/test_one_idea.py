"""The one idea: every method runs on every space that fits it, with every kind of score, and says when it does not."""

from __future__ import annotations

import contextlib
import copy
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import sartor
from sartor import spaces, targets, workflow
from sartor.choose.relax import Relaxation
from sartor.choose.solve import reachable
from sartor.core import Budget, Found, Json, Part, Score, SearchSpace, Slot, Supernet, TermScore, UserError, metric
from sartor.core import Path as Way
from sartor.data.images import image_set
from sartor.export import export
from sartor.methods import METHODS, SETTINGS
from sartor.predictors import PREDICTORS
from sartor.predictors.mlp import MLP
from sartor.runs import Run
from sartor.spaces.windows import Windows
from sartor.supernet import ChainSupernet
from sartor.targets.measure import measure
from sartor.targets.ort import OnnxRuntime
from sartor.targets.store import Store
from sartor.targets.timing import Rounds
from sartor.training.recipe import Recipe
from sartor.training.tasks import Classification
from tests.fakes import Grid, Ragged, additive

LATENCY, ENERGY = metric("latency_ms"), metric("energy_mj")
OPTIONS = ("conv", "depthwise", "nothing")


class Columns(SearchSpace):
    """A space nobody prepared for: three choices of a block, two of a head; (n, 1, 8, 8) to (n, classes)."""

    local_parts = True

    def __init__(self, width: int = 8, classes: int = 4) -> None:
        self.width, self.classes, self.channels, self.resolution = width, classes, 1, 8
        blocks = [Slot(f"block{i}", OPTIONS) for i in range(4)]
        self.slots = (*blocks, Slot("head", ("plain", "wide"), np.array([[1.0], [4.0]])))

    def spec(self) -> dict[str, Json]:
        return {"space": "columns", "width": self.width, "classes": self.classes}

    def inputs(self, batch: int, arch: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        return (torch.randn(batch, 1, 8, 8),)

    def _block(self, option: str) -> nn.Module:
        if option == "nothing":
            return nn.Identity()
        groups = self.width if option == "depthwise" else 1
        convolution = nn.Conv2d(self.width, self.width, 3, padding=1, groups=groups, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(self.width), nn.ReLU())

    def _head(self, wide: bool) -> nn.Module:
        hidden = [nn.Linear(self.width, 4 * self.width), nn.ReLU()] if wide else []
        last = nn.Linear(4 * self.width if wide else self.width, self.classes)
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), *hidden, last)

    def parts(self, arch: Sequence[int]) -> list[Part]:
        *blocks, head = self.canonical(arch)
        shape = ((self.width, 8, 8),)
        stem = Part(f"stem {self.width}", None, lambda: nn.Conv2d(1, self.width, 3, padding=1), ((1, 8, 8),))
        middle = [
            Part(f"{OPTIONS[k]} {self.width}", i, lambda k=k: self._block(OPTIONS[k]), shape)
            for i, k in enumerate(blocks)
        ]
        key = f"head {head} {self.width} {self.classes}"
        return [stem, *middle, Part(key, len(blocks), lambda: self._head(head == 1), shape)]

    def assemble(self, modules: Sequence[nn.Module]) -> nn.Module:
        return nn.Sequential(*modules)

    def network(self, arch: Sequence[int]) -> nn.Module:
        return self.assemble([part.make() for part in self.parts(arch)])

    def supernet(self) -> Supernet:
        return ChainSupernet(self)


spaces.SPACES.register("columns", Columns)
SPACES: dict[str, Callable[[], SearchSpace]] = {
    "columns": Columns,
    "mobilenet:tiny": lambda: spaces.get("mobilenet:tiny?width=0.4"),
    "tiny window": lambda: spaces.get("mobilenet:tiny?width=0.4").restrict({0: [1, 6], 3: [0, 2, 4], 8: [6]}),
    "ragged": Ragged,
    "nas-bench-201": lambda: spaces.get("nas-bench-201?width=4&cells=1&resolution=8&classes=5"),
    "expanded": lambda: spaces.get("expanded?stages=2&depth=3&width=6&stem=4&resolution=8&channels=1&classes=4"),
    "grid": Grid,
}
SHAPES = {
    "columns": (1, 4),
    "mobilenet:tiny": (1, 10),
    "tiny window": (1, 10),
    "ragged": (3, 5),
    "nas-bench-201": (3, 5),
    "expanded": (1, 4),
    "grid": (1, 4),
}


def task_of(name: str) -> Classification:
    """96 small images whose class shows, of the shape the space takes."""
    channels, classes = SHAPES[name]
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(96) % classes
    images = torch.randint(0, 100, (96, channels, 8, 8), generator=generator)
    images[torch.arange(96), :, labels % 8, labels // 2] += 150
    part = (images.to(torch.uint8), labels)
    return Classification(image_set("points", part, part, augmentation="none"))


def limit_of(space: SearchSpace, score: Score, share: float) -> float:
    low, high = reachable(space, score)
    return low + share * (high - low)


def mlp_of(space: SearchSpace) -> Score:
    """A fitted score without terms."""
    archs = space.sample(np.random.default_rng(0), 64)
    values = additive(space, 1)(archs) ** 1.2
    return MLP(hidden=(16,), epochs=30, residual=False).fit(space, archs, values, metric=LATENCY)


def budgets_of(kind: str, space: SearchSpace) -> list[Budget]:
    if kind == "mlp":
        score = mlp_of(space)
        return [Budget(score, limit_of(space, score, 0.5))]
    latency = additive(space, 1)
    budgets = [Budget(latency, limit_of(space, latency, 0.5), "at" if kind == "two-sided" else "at_most")]
    if kind == "two":
        energy = TermScore(space, ENERGY, additive(space, 2).terms())
        budgets.append(Budget(energy, limit_of(space, energy, 0.6)))
    return budgets


def settings_of(method: str, **wanted: Any) -> dict[str, Any]:
    """The small settings that a method knows."""
    small = {"epochs": 2, "warmup_epochs": 1, "batch_size": 16, "queries": 12, "networks": 12, "rounds": 2, **wanted}
    small = {"iterations": 2, "population": 4, "keep": 2, "batches": 2, "depths": 1, "widths": 2, **small}
    return {key: value for key, value in small.items() if key in SETTINGS[method].model_fields}


def refusal(method: str, space: SearchSpace) -> str | None:
    """Why a method does not fit a space, None when it does."""
    chooser: Any = METHODS[method]
    try:
        chooser.of(settings_of(method)).check(space, budgets_of("additive", space))
    except UserError as error:
        return str(error)
    return None


def search(method: str, name: str, kind: str, run: Path | None = None, task: Any = None, **wanted: Any) -> Found:
    space = SPACES[name]()
    quality = TermScore(space, metric("accuracy"), additive(space, 4).terms())
    return sartor.search(
        method,
        space,
        task_of(name) if task is None else task,
        budget=budgets_of(kind, space),
        objectives=[quality] if SETTINGS[method].asks and not space.has_supernet else [],
        run=run,
        seed=3,
        **settings_of(method, **wanted),
    )


def check_found(found: Found, budgets: Sequence[Budget]) -> None:
    """What every method owes: architectures of the space, honest numbers, and landing or saying so."""
    space = found.space
    assert space.canonical(found.architecture) == found.architecture
    assert space.canonical(found.argmax.architecture) == found.argmax.architecture
    assert [b.limit for b in found.budgets] == [b.limit for b in budgets]
    for landed in (found.winner, found.argmax):
        for budget in budgets:
            cost = float(budget.score([landed.architecture])[0])
            assert landed.predicted[budget.score.metric.name] == pytest.approx(cost, rel=1e-9)
    costs = [found.winner.predicted[b.score.metric.name] for b in budgets]
    assert found.feasible == all(b.feasible(c) for b, c in zip(budgets, costs))
    if found.winner.status in ("optimal", "verified"):
        assert found.feasible
        needed = all if budgets[0].sense == "at" else any
        assert needed(b.lands(c) for b, c in zip(budgets, costs))
    elif found.winner.status == "within":
        assert found.feasible
        assert SETTINGS[found.method].asks or SETTINGS[found.method].fronts
        assert not any(b.lands(c) for b, c in zip(budgets, costs))
    else:
        assert found.winner.status in ("argmax", "none_found")
    network = found.network()
    assert network(*space.inputs(2, found.architecture)).shape[0] == 2


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("name", list(SPACES))
@pytest.mark.parametrize("kind", ["additive", "two-sided", "mlp", "two"])
def test_every_method_runs_on_every_space_that_fits_it(method: str, name: str, kind: str) -> None:
    reason = refusal(method, SPACES[name]())
    if reason is not None:
        assert name in reason or SPACES[name]().name in reason
        with pytest.raises(UserError) as caught:
            search(method, name, kind)
        assert "\n" not in str(caught.value)
        return
    found = search(method, name, kind)
    assert found.method == method
    check_found(found, found.budgets)
    described = workflow.describe_found(found, [{}, {}], {}, None)
    assert json.loads(json.dumps(described)) == described
    assert [b["metric"] for b in described["budgets"]] == [b.score.metric.name for b in found.budgets]


def test_pairs_that_do_not_fit_say_why_in_one_line() -> None:
    pairs = {(m, name): refusal(m, make()) for m in METHODS for name, make in SPACES.items()}
    refused = {pair: reason for pair, reason in pairs.items() if reason is not None}
    for (method, name), reason in refused.items():
        print(f"{method} on {name}: {reason}")
        assert "\n" not in reason
    for method in METHODS:
        fits = [name for name in SPACES if pairs[method, name] is None]
        print(f"{method} runs on {', '.join(fits)}")
        least = 1 if method == "network-space-search" else 2  # it is about one space
        assert len(fits) >= least, f"{method} must fit more than one space"
    if "lightnas" in METHODS:
        assert {name for method, name in refused if method == "lightnas"} == {"grid"}
        assert "supernet" in str(pairs["lightnas", "grid"])


class Interrupted:
    """A task that stops the process's work after some batches, as Ctrl-C does."""

    def __init__(self, task: Classification, after: int) -> None:
        self._task, self._left = task, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt

    def loss(self, net: Any, batch: Any) -> Tensor:
        self._count()
        return self._task.loss(net, batch)

    def evaluate(self, net: Any, split: Any, *, limit: int | None = None) -> Mapping[str, float]:
        self._count()
        return self._task.evaluate(net, split, limit=limit)


class InterruptedIn(Interrupted):
    """Stops when an epoch begins."""

    def __init__(self, task: Classification, epoch: int) -> None:
        super().__init__(task, after=10**9)
        self._epoch = epoch

    def batches(self, split: Any, *, epoch: int, **options: Any) -> Any:
        if epoch == self._epoch:
            raise KeyboardInterrupt
        return self._task.batches(split, epoch=epoch, **options)


def journals(run: Path) -> dict[str, bytes]:
    return {str(p.relative_to(run)): p.read_bytes() for p in run.rglob("journal.jsonl")}


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("name", ["columns", "ragged"])
@pytest.mark.parametrize("after", [1, 5, 8, 12])
def test_an_interrupted_search_ends_as_an_uninterrupted_one(
    method: str, name: str, after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if refusal(method, SPACES[name]()) is not None:
        pytest.skip("does not fit")
    monkeypatch.setattr(Run, "checkpoint_seconds", 0.0)
    whole = search(method, name, "two", tmp_path / "whole", epochs=3)
    try:
        search(method, name, "two", tmp_path / "cut", Interrupted(task_of(name), after), epochs=3)
    except KeyboardInterrupt:
        assert journals(tmp_path / "cut") != journals(tmp_path / "whole")
    again = search(method, name, "two", tmp_path / "cut", epochs=3)
    assert (again.winner, again.argmax, again.extras) == (whole.winner, whole.argmax, whole.extras)
    assert journals(tmp_path / "cut") == journals(tmp_path / "whole")


@pytest.mark.parametrize("method", [m for m in METHODS if "warmup_epochs" in SETTINGS[m].model_fields])
def test_frozen_epochs_leave_the_logits_bit_identical(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Run, "checkpoint_seconds", 0.0)
    name = "columns" if refusal(method, Columns()) is None else "expanded"

    def logits(task: Any = None) -> Tensor:
        with contextlib.suppress(KeyboardInterrupt):
            search(method, name, "additive", tmp_path / "run", task, epochs=3, warmup_epochs=2)
        saved = torch.load(tmp_path / "run" / "search" / "checkpoint.pt", weights_only=True)["state"]
        found: Tensor = saved["relaxation"]["logits"]
        return found

    with Run(tmp_path / "fresh", {}, seed=3) as run:
        generator = torch.Generator().manual_seed(run.stage("search").torch_seed("logits"))
    chosen_from = Columns() if name == "columns" else Windows(SPACES[name](), 1, 2)
    fresh = Relaxation(chosen_from, generator).logits.detach()
    assert torch.equal(logits(InterruptedIn(task_of(name), 2)), fresh)
    assert not torch.equal(logits(), fresh)


@pytest.mark.parametrize("name", ["columns", "nas-bench-201", "tiny window"])
def test_lightnas_can_run_all_candidates_as_darts_does(name: str) -> None:
    found = search("lightnas", name, "additive", paths="all")
    check_found(found, found.budgets)


def test_a_supernet_of_single_paths_is_not_asked_to_run_all() -> None:
    with pytest.raises(UserError, match="one path at a time"):
        search("lightnas", "ragged", "additive", paths="all")


def test_a_window_that_runs_all_runs_its_own() -> None:
    window = SPACES["tiny window"]()
    supernet: Any = window.supernet()
    ran: list[int] = []
    for k, candidate in enumerate(supernet.base.columns[supernet.base.slots.index(0)]):
        candidate.register_forward_hook(lambda *_, k=k: ran.append(k))
    gates = tuple(torch.full((len(s),), 1.0 / len(s)) for s in window.slots)
    supernet(*window.inputs(2), path=Way((0,) * len(window.slots), gates, mixed=True))
    assert ran == [1, 6]


def test_another_budget_is_another_job(tmp_path: Path) -> None:
    method = next(iter(METHODS))
    search(method, "columns", "additive", tmp_path / "run")
    with pytest.raises(UserError, match="another job: its budgets"):
        search(method, "columns", "two", tmp_path / "run")


def quick() -> OnnxRuntime:
    """The real target with a shorter protocol."""
    return OnnxRuntime(protocol=Rounds(chunk=8, rounds=3, visit_ms=1.0, warmup_ms=1.0, patience_s=0))


def test_a_space_defined_here_goes_the_whole_way_without_an_edit_of_the_source(tmp_path: Path) -> None:
    space, target, task = Columns(), quick(), task_of("columns")
    with Store(tmp_path / "store.db") as store:
        archs = workflow.design(space, 16)
        rows = measure(space, target, archs, ["latency_ms"], store)
        assert [row.arch for row in rows] == archs
        assert all(row.error is None for row in rows)
        fit = workflow.fit_predictor("all", space, target, samples=24, store=store)
        assert {row["predictor"] for row in fit.report["rows"]} == set(PREDICTORS)
        limit = limit_of(space, fit.predictor, 0.5)
        found = sartor.search(
            "lightnas",
            space,
            task,
            budget=fit.predictor.at(f"{limit}ms"),
            run=tmp_path / "search",
            **settings_of("lightnas"),
        )
        check_found(found, found.budgets)
        fresh = workflow.remeasure(space, target, [found.architecture], ["latency_ms"], store, "check")
        assert fresh[0]["latency_ms"] is not None
    with Run(tmp_path / "train", {"verb": "train"}) as run:
        trained = workflow.train_network(space, found.architecture, task, Recipe(epochs=2, batch_size=24), run)
    assert trained["macs"] > 0
    again, arch, network = workflow.load_network(tmp_path / "train")
    assert (again, arch) == (space, found.architecture)
    described = space.to_json(arch)
    x = space.inputs(1)
    files = export(space.deploy(copy.deepcopy(network)), x, tmp_path / "out", ("onnx", "safetensors"), described)
    assert set(files) == {"onnx", "safetensors"}
    session = onnxruntime.InferenceSession(tmp_path / "out" / "network.onnx", providers=["CPUExecutionProvider"])
    (answer,) = session.run(["output"], {"input0": x[0].numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(answer, network.eval()(*x).numpy(), rtol=1e-3, atol=1e-5)


def test_measuring_leaves_the_arithmetic_of_the_process_as_it_was(tmp_path: Path) -> None:
    script = (
        "import sys, torch\nfrom sartor.targets.store import Store\nfrom sartor.targets.measure import measure\n"
        "from tests.test_one_idea import Columns, quick\nspace = Columns()\n"
        "def flushes(): return sys.float_info.min / 2 == 0.0\n"
        "for before in (False, True):\n"
        "    torch.set_flush_denormal(before)\n"
        "    with Store(sys.argv[1]) as store:\n"
        "        rows = measure(space, quick(), list(space.enumerate())[:3], ['latency_ms'], store, str(before))\n"
        "    assert all(row.error is None for row in rows)\n"
        "    assert flushes() == before\n"
    )
    root, line = Path(__file__).parents[1], [sys.executable, "-c", script, str(tmp_path / "store.db")]
    found = subprocess.run(line, cwd=root, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


def test_measuring_samples_of_a_small_space_see_every_candidate() -> None:
    space = Columns()  # 162 networks
    for samples in (81, 120, 162):
        archs = workflow.design(space, samples)
        assert len(set(archs)) == samples
        assert [{a[i] for a in archs} for i in range(5)] == [{0, 1, 2}] * 4 + [{0, 1}]
    assert workflow.design(space, 120)[:81] == workflow.design(space, 81)
    assert workflow.design(space, 120, seed=1) != workflow.design(space, 120)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_data_that_does_not_fit_is_refused_whatever_the_space_calls_its_options() -> None:
    for name, other in (("columns", "mobilenet:tiny"), ("ragged", "columns"), ("tiny window", "columns")):
        with pytest.raises(UserError, match="and the data differ in"):
            workflow.fits_task(SPACES[name](), task_of(other))
        workflow.fits_task(SPACES[name](), task_of(name))


def test_targets_by_name_are_the_ones_used_here() -> None:
    assert targets.get("onnxruntime:cpu").id == quick().id
