"""Searching: budgets from what is typed, data that fits a space, a method by name, and what it found as JSON."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sartor.core import Budget, Found, Json, Score, SearchSpace, Task, UserError, parse_limit
from sartor.core.memory import keep_freed_memory
from sartor.core.units import COUNTED
from sartor.methods import METHODS
from sartor.runs import Run, read_json, write_json
from sartor.spaces.detectors import Detectors
from sartor.spaces.windows import Windows


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
    one_a_metric(budgets)
    return budgets


def budgets_of_run(source: Path, space: SearchSpace) -> list[Budget]:
    """The limits of a search from the command line, by the predictors that its run has kept."""
    from sartor.predictors import load

    job = read_json(source / "run.json").get("job", {})
    files = sorted(source.glob("predictor-*.safetensors"))
    scores: dict[str, Score] = {file.stem.partition("-")[2]: load(file, space=space) for file in files}
    return budgets_of(job.get("budgets", []), scores, space, job.get("two_sided", False))


def one_a_metric(budgets: Sequence[Budget]) -> None:
    """Raise UserError where two budgets limit one metric: costs are told apart by its name."""
    names = [b.score.metric.name for b in budgets]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"there are {names.count(name)} budgets on {name}; keep the tightest.")


def fits_task(
    space: SearchSpace,
    task: Task,
    arch: Sequence[int] | None = None,
    *,
    named: str | None = None,
    advice: str | None = None,
) -> None:
    """Raise UserError when the data are not what the networks of the space take and give.

    Of images: channels, resolution and classes; of text: the sizes of both vocabularies. arch: the network to look at,
    where inputs differ within the space; default: the first. named, advice: what the space is to who asks, and what can
    be done, for the message.
    """
    named = named or f"space {space.name!r}"
    takes, offers = _taken(space, arch), _offered(task)
    if not takes or not offers:  # about something else
        return
    if takes.keys() != offers.keys():
        kinds = [
            "text" if "source" in of else "images with boxes" if "things" in of else "images" for of in (takes, offers)
        ]
        raise UserError(f"{named} takes {kinds[0]}, the data are {kinds[1]}; give other --data.")
    wrong = {k: (takes[k], wants) for k, wants in offers.items() if wants is not None and takes[k] != wants}
    if wrong:
        said = ", ".join(f"{k} {has} (data: {wants})" for k, (has, wants) in wrong.items())
        query = "&".join(f"{k}={wants}" for k, (_, wants) in wrong.items())
        known = wrong.keys() <= space.spec().keys()
        usual = f"add ?{query} to the space" if known else f"use a space with {query.replace('&', ', ')}"
        raise UserError(f"{named} and the data differ in {said}; {advice or usual}, or other --data.")


def _taken(space: SearchSpace, arch: Sequence[int] | None) -> dict[str, Any]:
    """What the networks of a space are built for, in the words of its options."""
    import torch

    from sartor.layers.translator import Translator

    arch = space.canonical((0,) * len(space.slots) if arch is None else arch)
    inputs = space.inputs(1, arch)
    with torch.device("meta"), torch.no_grad():
        network = space.network(arch).to("meta").eval()
        if isinstance(network, Translator):
            return {"source": network.source.num_embeddings, "target": network.target.num_embeddings}
        if len(inputs) > 1 or inputs[0].ndim != 4:
            return {}
        outputs = network(inputs[0].to("meta"))
    _, channels, *size = inputs[0].shape
    if isinstance(space, Detectors):
        return {"channels": channels, "resolution": _edge(*size), "things": space.classes}
    return {"channels": channels, "resolution": _edge(*size), "classes": outputs.shape[-1]}


def _offered(task: Task) -> dict[str, Any]:
    """What data are like, in the same words; None: anything will do."""
    if (sizes := getattr(task, "vocabularies", None)) is not None:
        return dict(zip(("source", "target"), sizes))
    if (shape := getattr(task, "shape", None)) is None:
        return {}
    kind = "things" if task.metric.name == "ap" else "classes"
    return {"channels": shape[0], "resolution": _edge(*shape[1:]), kind: getattr(task, "classes", None)}


def _edge(height: int, width: int) -> int | str:
    return height if height == width else f"{height}x{width}"


def search(
    method: str,
    space: SearchSpace,
    task: Task | None,
    *,
    budget: Budget | str | Sequence[Budget | str],
    objectives: Sequence[Score] = (),
    run: Run | str | Path | None = None,
    seed: int = 0,
    paper: bool = False,
    **settings: Any,
) -> Found:
    """Search with a method by name. settings: its hyper-parameters; paper: start from the published ones.

    budget: limits of scores, such as `latency.at("20ms")`; what is counted can be typed, such as "300MMACs".

    run: a directory to keep the search in, so that the same call resumes; None keeps nothing.
    """
    from sartor.training.tasks import for_search

    keep_freed_memory()
    chooser: Any = METHODS[method]
    engine = chooser.of(settings, paper=paper)
    given = [budget] if isinstance(budget, Budget | str) else list(budget)
    budgets = [b if isinstance(b, Budget) else budgets_of([b], {}, space, False)[0] for b in given]
    one_a_metric(budgets)
    engine.follows(space)
    engine.check(space, budgets)
    view = None
    if task is not None:
        fits_task(space, task)
        if not objectives:
            engine.suits(space, task)
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
            keep(found, opened_run.path)
            return found


def keep(found: Found, path: Path) -> None:
    """Write what was found, `architecture.json`.

    Of a front also its members, `front/1.json` and so on; of a space of spaces the space, `elite.json`.
    """
    write_json(path / "architecture.json", found.space.to_json(found.architecture))
    for i, point in enumerate(found.extras.get("front", []), 1):
        write_json(path / "front" / f"{i}.json", found.space.to_json(point["architecture"]))
    if isinstance(found.space, Windows):
        write_json(path / "elite.json", found.space.elite(found.architecture).spec())


def follow_up(found: Found, run: Path, data: str, options: Sequence[str]) -> str:
    """The command that comes next; options: of the search, which one in a space that was found has, too."""
    if isinstance(found.space, Windows):
        elite = str(run / "elite.json")
        return shlex.join(["sartor", "search", "lightnas", "--space", elite, "--data", data, *options])
    return shlex.join(["sartor", "train", str(run), "--data", data])


def describe_found(
    found: Found, measured: Sequence[Mapping[str, float | None]], settings: Json, target: str | None
) -> dict[str, Json]:
    """The JSON of a search; measured: fresh values of the winner and of the argmax."""

    def gaps(costs: Mapping[str, float | None]) -> dict[str, float]:
        named = [(b, b.score.metric.name, costs.get(b.score.metric.name)) for b in found.budgets]
        return {name: b.gap_percent(cost) for b, name, cost in named if cost is not None}

    chosen, extras = found.space.to_json(found.architecture), dict(found.extras)
    front = [
        {"network": i, extras["quality"]: point["quality"], **{k: v for k, v in point.items() if k != "quality"},
         "file": f"front/{i}.json"}
        for i, point in enumerate(extras.pop("front", []), 1)
    ]  # fmt: skip
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
        "landing": found.winner.status if found.budgets else None,
        "feasible": found.feasible,
        **({"score": {str(extras["quality"]): extras["score"]}} if {"quality", "score"} <= extras.keys() else {}),
        **({"front": front} if front else {}),
        "extras": extras,
        "settings": settings,
    }
