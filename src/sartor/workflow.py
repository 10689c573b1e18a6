"""The main way through the house: measure a sample, fit a predictor, search, measure the winner.

The command line and the Python interface are both made of these functions.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sartor.core import (
    Architecture,
    Budget,
    Found,
    Json,
    Measurement,
    Score,
    SearchSpace,
    Target,
    Task,
    UserError,
    metric,
    parse_limit,
)
from sartor.core.memory import keep_freed_memory
from sartor.methods import METHODS
from sartor.predictors import PREDICTORS, Predictor
from sartor.runs import Run, read_json, write_atomic, write_json
from sartor.targets.measure import measure

if TYPE_CHECKING:
    from torch import nn

    from sartor.targets.store import Store
    from sartor.training.recipe import Recipe

COUNTED = ("macs", "params")
NOISE_SAMPLES = 30
ENUMERABLE = 20_000


def default_store() -> str:
    """Where measurements are kept: $SARTOR_STORE, or a file in the user's cache directory."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return os.environ.get("SARTOR_STORE") or str(cache / "sartor" / "measurements.db")


@contextmanager
def opened(store: Store | str | None) -> Iterator[Store]:
    """A store from a path, a database URL, or the default one; an open one is left open."""
    from sartor.targets.store import Store

    if isinstance(store, Store):
        yield store
    else:
        with Store(store or default_store()) as found:
            yield found


# ---------------------------------------------------------------------- measuring


def design(space: SearchSpace, samples: int, seed: int = 0) -> list[Architecture]:
    """Different architectures to fit a predictor on: uniform ones and wide ones in turn; more samples extend fewer."""
    if samples < 1:
        raise UserError(f"samples={samples} is too few; give a whole number from 1 up.")
    uniform, wide = (np.random.default_rng([seed, k]) for k in (0, 1))
    found: dict[Architecture, None] = {}
    if space.size <= 2 * samples:
        everything = list(space.enumerate())
        return [everything[i] for i in np.random.default_rng([seed, 2]).permutation(len(everything))[:samples]]
    while len(found) < samples:
        for rng, draw in ((uniform, space.sample), (wide, space.sample_wide)):
            found.update(dict.fromkeys(draw(rng, 1)))
    return list(found)[:samples]


def measure_parts(space: SearchSpace, target: Target, name: str, store: Store) -> dict[str, float]:
    """Cost of every part of a space, each measured alone: what a lookup table holds."""
    from sartor.spaces.parts import Parts

    parts = Parts(space)
    archs = list(parts.enumerate())
    found = measure(parts, target, archs, [name], store)
    return {parts.slots[0].candidates[arch[0]]: one.value for arch, one in zip(archs, found)}


def remeasure(
    space: SearchSpace, target: Target, archs: Sequence[Architecture], names: Sequence[str], store: Store, sitting: str
) -> list[dict[str, float | None]]:
    """Fresh measurements in a sitting of their own: per architecture {metric: value, or None for a failure}."""
    wanted = [name for name in dict.fromkeys(names) if name in target.metrics]
    found = measure(space, target, archs, wanted, store, sitting=sitting) if wanted else []
    values = {(one.key, one.metric): one.value if one.error is None else None for one in found}
    return [{name: values[space.key(arch), name] for name in wanted} for arch in archs]


# ---------------------------------------------------------------------- fitting


@dataclass(frozen=True)
class Fit:
    """A fitted predictor, and what is known about its quality (`fit.json` of a run)."""

    predictor: Predictor
    report: dict[str, Json]


def fit_predictor(
    name: str,
    space: SearchSpace,
    target: Target,
    *,
    samples: int = 2000,
    metric_name: str = "latency_ms",
    near: float | None = None,
    store: Store | str | None = None,
    seed: int = 0,
) -> Fit:
    """Measure what the store lacks, compare predictors on held-out architectures, fit one on all.

    name: one of PREDICTORS; `auto` compares ridge, mlp and, in small spaces or where there are as many samples as
    products of two slots' candidates, pairs; `all` compares all (lookup where parts are measured alone); both take the
    one that has earned it; near: a limit around which quality is reported too. Raises UserError when too little could
    be measured.
    """
    from sartor.predictors.evaluate import evaluate, noise_floor, splits

    if name not in PREDICTORS and name not in ("auto", "all"):
        PREDICTORS[name]
    with opened(store) as kept:
        archs = design(space, samples, seed)
        found = measure(space, target, archs, [metric_name], kept)
        again = measure(space, target, archs[:NOISE_SAMPLES], [metric_name], kept, sitting="repeat")
        names = _compared(name, space, len(archs))
        parts = measure_parts(space, target, metric_name, kept) if "lookup" in names else {}
    values = np.asarray([one.value for one in found])
    usable = int(np.isfinite(values).sum())
    if usable < 10:
        raise UserError(
            f"only {usable} of {len(archs)} networks could be measured on {target.id} (first error: "
            f"{next((one.error for one in found if one.error), 'none')}); a predictor needs 10 or more."
        )
    floor = _floor(found[: len(again)], again, noise_floor)
    makers = {n: _maker(n, parts) for n in names}
    rows = evaluate(makers, space, archs, values, metric=metric(metric_name), seed=seed, limit=near, floor=floor)
    chosen = name if name in PREDICTORS else next(str(row["predictor"]) for row in rows if row["default"])

    whole = np.flatnonzero(np.isfinite(values))
    train, held = next(splits(len(whole), 5, None, seed))
    known, numbers = [archs[i] for i in whole], values[whole]
    predicted = {
        n: make().fit(space, [known[i] for i in train], numbers[train], metric=metric(metric_name))(
            [known[i] for i in held]
        )
        for n, make in makers.items()
    }
    predictor = makers[chosen]().fit(space, known, numbers, metric=metric(metric_name), target_id=target.id)
    report = {
        "metric": metric_name,
        "unit": metric(metric_name).unit,
        "target": target.id,
        "space": space.spec(),
        "default": chosen,
        "noise_floor": floor,
        "samples": usable,
        "failed": len(archs) - usable,
        "conditions": next(dict(one.conditions) for one in found if one.error is None),
        "rows": [{k: v for k, v in row.items() if k != "rmse_splits"} for row in rows],
        "points": {
            "measured": [float(v) for v in numbers[held]],
            "predicted": {n: [float(v) for v in p] for n, p in predicted.items()},
        },
    }
    return Fit(predictor, report)


def _compared(name: str, space: SearchSpace, samples: int) -> list[str]:
    """Names of the predictors to fit; `auto` spends no time on products that there are too few samples to tell of."""
    widths = np.array([len(slot) for slot in space.slots])
    if name == "auto":
        products = (widths.sum() ** 2 - (widths**2).sum()) // 2
        return ["ridge", *(["pairs"] if products <= samples or space.size <= ENUMERABLE else []), "mlp"]
    if name == "all":
        return ["ridge", *(n for n in PREDICTORS if n != "ridge" and (n != "lookup" or space.local_parts))]
    return list(dict.fromkeys(["ridge", name]))


def _maker(name: str, parts: Mapping[str, float]) -> Any:
    return lambda: PREDICTORS.make(name, **({"parts": parts} if name == "lookup" else {}))


def _floor(first: Sequence[Measurement], second: Sequence[Measurement], rmse: Any) -> float | None:
    pairs = [(a.value, b.value) for a, b in zip(first, second) if a.error is None and b.error is None]
    return float(rmse(*map(np.asarray, zip(*pairs)))) if len(pairs) > 1 else None


def fit(
    name: str,
    space: SearchSpace,
    target: Target,
    *,
    samples: int = 2000,
    metric_name: str = "latency_ms",
    seed: int = 0,
) -> Predictor:
    """A predictor of a metric of networks of this space on this target; see `fit_predictor`."""
    return fit_predictor(name, space, target, samples=samples, metric_name=metric_name, seed=seed).predictor


# ---------------------------------------------------------------------- searching


def budgets_of(limits: Sequence[str], scores: Mapping[str, Score], space: SearchSpace, two_sided: bool) -> list[Budget]:
    """Budgets from limits such as `20ms`; MACs and parameters are counted, others need a score by metric name."""
    from sartor.spaces.complexity import Complexity

    budgets = []
    for text in limits:
        kind, _ = parse_limit(text)
        score = scores.get(kind.name) or (Complexity(space, kind.name) if kind.name in COUNTED else None)
        if score is None:
            raise UserError(f"budget {text!r} has nothing that predicts {kind.name}; give a --target or a --predictor.")
        budgets.append(score.at(text, "at" if two_sided else "at_most"))
    names = [b.score.metric.name for b in budgets]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"there are {names.count(name)} budgets on {name}; keep the tightest.")
    return budgets


def fits_task(space: SearchSpace, task: Task, arch: Sequence[int] | None = None) -> None:
    """Raise UserError when images or classes of the data are not those the networks of the space take and give.

    arch: the network to look at, where inputs differ within the space; default: the first.
    """
    import torch

    shape, classes = getattr(task, "shape", None), getattr(task, "classes", None)
    arch = space.canonical((0,) * len(space.slots) if arch is None else arch)
    (first, *others) = space.inputs(1, arch)
    if shape is None or others or first.ndim != 4:  # not about images
        return
    with torch.device("meta"), torch.no_grad():
        outputs = space.network(arch).to("meta").eval()(first.to("meta"))
    options = {
        "channels": (first.shape[1], shape[0]),
        "resolution": (_edge(*first.shape[2:]), _edge(*shape[1:])),
        "classes": (outputs.shape[-1], classes),
    }
    wrong = {k: (has, wants) for k, (has, wants) in options.items() if wants is not None and has != wants}
    if wrong:
        said = ", ".join(f"{k} {has} (data: {wants})" for k, (has, wants) in wrong.items())
        query = "&".join(f"{k}={wants}" for k, (_, wants) in wrong.items())
        known = wrong.keys() <= space.spec().keys()
        advice = f"add ?{query} to the space" if known else f"use a space with {query.replace('&', ', ')}"
        raise UserError(f"space {space.name!r} and the data differ in {said}; {advice}.")


def _edge(height: int, width: int) -> int | str:
    return height if height == width else f"{height}x{width}"


def search(
    method: str,
    space: SearchSpace,
    task: Task | None,
    *,
    budget: Budget | Sequence[Budget],
    objectives: Sequence[Score] = (),
    run: Run | str | Path | None = None,
    seed: int = 0,
    paper: bool = False,
    **settings: Any,
) -> Found:
    """Search with a method by name. settings: its hyper-parameters; paper: start from the published ones.

    run: a directory to keep the search in, so that the same call resumes; None keeps nothing.
    """
    from sartor.training.tasks import for_search

    keep_freed_memory()
    chooser: Any = METHODS[method]
    engine = chooser.of(settings, paper=paper)
    budgets = [budget] if isinstance(budget, Budget) else list(budget)
    engine.check(space, budgets)
    view = None
    if task is not None:
        fits_task(space, task)
        view = for_search(task)
    if isinstance(run, Run):
        direct: Found = engine.search(space, objectives, budgets, run.stage("search"), view)
        return direct
    with tempfile.TemporaryDirectory() as scratch:
        job = {
            "verb": "search",
            "method": method,
            "space": space.spec(),
            "settings": engine.model_dump(),
            "budgets": [str(b) for b in budgets],
        }
        with Run(run or scratch, job, seed) as opened_run:
            found = search(
                method, space, task, budget=budgets, objectives=objectives, run=opened_run, paper=paper, **settings
            )
            write_json(opened_run.path / "architecture.json", space.to_json(found.architecture))
            return found


def describe_found(
    found: Found, measured: Sequence[Mapping[str, float | None]], settings: Json, target: str | None
) -> dict[str, Json]:
    """The JSON of a search; measured: fresh values of the winner and of the argmax."""

    def gaps(costs: Mapping[str, float | None]) -> dict[str, float]:
        named = [(b, b.score.metric.name, costs.get(b.score.metric.name)) for b in found.budgets]
        return {name: b.gap_percent(cost) for b, name, cost in named if cost is not None}

    chosen = found.space.to_json(found.architecture)
    return {
        "method": found.method,
        "space": chosen["space"],
        "architecture": chosen["architecture"],
        "choices": chosen["choices"],
        "target": target,
        "budgets": [
            {"metric": b.score.metric.name, "limit": b.limit, "unit": b.score.metric.unit, "sense": b.sense}
            for b in found.budgets
        ],
        "predicted": dict(found.winner.predicted),
        "measured": dict(measured[0]),
        "gap_percent": gaps(found.winner.predicted),
        "measured_gap_percent": gaps(measured[0]),
        "argmax": {
            "architecture": list(found.argmax.architecture),
            "predicted": dict(found.argmax.predicted),
            "measured": dict(measured[1]),
            "gap_percent": gaps(found.argmax.predicted),
            "measured_gap_percent": gaps(measured[1]),
        },
        "landing": found.winner.status,
        "feasible": found.feasible,
        "settings": settings,
    }


# ---------------------------------------------------------------------- networks


def load_architecture(source: Path) -> tuple[SearchSpace, Architecture]:
    """Space and architecture of a run directory or an architecture file. Raises UserError when there is none."""
    from sartor.spaces import from_spec

    file = source / "architecture.json" if source.is_dir() else source
    if source.is_dir() and not file.exists():
        raise UserError(f"{source} holds no architecture.json; give the directory of a finished search or training.")
    data = read_json(file)
    if not isinstance(data, dict) or "space" not in data:
        raise UserError(f"{file} is not an architecture file; write it with sartor.")
    space = from_spec(data["space"])
    return space, space.from_json(data)


def train_network(
    space: SearchSpace, arch: Architecture, task: Task, recipe: Recipe, run: Run, devices: int = 1
) -> dict[str, Json]:
    """Train a network from scratch; its weights go to `network.safetensors` of the run, beside the architecture.

    devices: how many share every batch; see `training.loop.train`.
    """
    import torch
    from safetensors.torch import save

    from sartor.spaces.complexity import Complexity
    from sartor.training.loop import train

    fits_task(space, task, arch)
    torch.manual_seed(run.torch_seed("weights"))
    network = space.network(arch)
    found = train(network, task, recipe, run.stage("train"), devices=devices)
    write_atomic(run.path / "network.safetensors", save({k: v.contiguous() for k, v in network.state_dict().items()}))
    write_json(run.path / "architecture.json", space.to_json(arch))
    macs = float(Complexity(space, "macs")([arch])[0])
    return {**found, "macs": macs, "space": space.spec(), "architecture": list(arch), "data": task.describe()}


def load_network(source: Path) -> tuple[SearchSpace, Architecture, nn.Module]:
    """The trained network of a `train` run. Raises UserError when there are no weights or they do not fit."""
    from safetensors.torch import load_file

    space, arch = load_architecture(source)
    weights = source / "network.safetensors"
    if not weights.exists():
        raise UserError(f"{source} holds no trained weights; train it first: sartor train {source}.")
    network = space.network(arch)
    try:
        network.load_state_dict(load_file(weights))
    except Exception as error:
        raise UserError(
            f"{weights} does not fit the architecture ({str(error).splitlines()[0]}); train again."
        ) from None
    return space, arch, network


def compare(
    members: Sequence[tuple[SearchSpace, Architecture]],
    target: Target,
    names: Sequence[str],
    store: Store,
    sitting: str,
) -> list[dict[str, float | None]]:
    """Measurements of networks of any spaces, taken in one sitting so that they can be compared."""
    from sartor.spaces.networks import Networks

    together = Networks(members)
    return remeasure(together, target, list(together.enumerate()), names, store, sitting)


def match_uniform(
    space: SearchSpace, arch: Architecture, target: Target, store: Store, sitting: str
) -> tuple[SearchSpace, Architecture]:
    """The MobileNetV2-like network of `space`'s make whose width comes nearest to the architecture's latency.

    All widths that differ are measured in one sitting with the architecture.
    """
    from sartor.spaces.uniform import Uniform

    options = {k: v for k, v in space.spec().items() if k not in ("space", "width", "resolution")}
    widths = [round(0.1 * 1.06**i, 3) for i in range(60)]
    scaled = Uniform(**options, widths=widths, resolutions=[space.spec()["resolution"]])
    different = list({scaled.key(a): a for a in scaled.enumerate()}.values())
    members = [(space, arch), *((scaled, a) for a in different)]
    found = [row["latency_ms"] for row in compare(members, target, ["latency_ms"], store, sitting)]
    wanted = found[0]
    usable = [(abs(ms - wanted), a) for a, ms in zip(different, found[1:]) if wanted is not None and ms is not None]
    if not usable:
        raise UserError("neither the network nor its scaled relatives could be measured; see sartor measure.")
    return scaled, min(usable)[1]
