"""What a space that was found is worth, beside all of the space that it was found in."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sartor.core import Budget, F, Json, Score, Task, UserError
from sartor.quality.spaces import LANDED, beaten, draws_to_land, hypervolume, landed, principled
from sartor.runs import Run, read_json
from sartor.spaces.windows import Windows
from sartor.workflow.networks import load_found


def space_report(
    source: Path, task: Task, run: Run, *, networks: int = 200, epochs: int = 50, batch_size: int = 64
) -> dict[str, Json]:
    """Networks drawn uniformly from the space found, from the Expanded Space, and by RegNet's principle from that.

    Quality is told by a supernet that is trained for that alone, on all of the Expanded Space, so that what it says of
    either has the same weights; cost is that of the first budget of the search. `networks`: of each; epochs,
    batch_size: of the supernet. Supernet and grades are kept in `run`. Raises UserError for a run that found no space.
    """
    from sartor.quality.supernet import Remembered, SupernetScore, train_supernet

    windows, arch = load_found(source)
    if not isinstance(windows, Windows):
        raise UserError(f"{source} found no space; give a run of network-space-search.")
    budget, rng = _budget(source, windows), run.rng("networks")
    supernet = train_supernet(windows.of, task, run.stage("supernet"), epochs=epochs, batch_size=batch_size)
    score = Remembered(SupernetScore(windows.of, supernet, task), run.stage("grades"))
    some = {
        "all": windows.of.sample(rng, networks),
        "the space found": windows.members(arch, rng, networks),
        "RegNet's principle": principled(windows.of, rng, networks),
    }
    points = {of: {"quality": score(archs), "cost": budget.score(archs)} for of, archs in some.items()}
    return {
        "metric": score.metric.name,
        "cost": budget.score.metric.name,
        "limit": budget.limit,
        "rows": compared(points, budget, score),
        "points": {of: {key: values.tolist() for key, values in one.items()} for of, one in points.items()},
    }


def compared(points: dict[str, dict[str, F]], budget: Budget, score: Score) -> list[dict[str, Json]]:
    """A line for each origin of networks; the first one is what all are held against."""
    sign = -1.0 if score.metric.better == "more" else 1.0
    both = {of: np.column_stack([sign * one["quality"], one["cost"]]) for of, one in points.items()}
    everything = np.concatenate(list(both.values()))
    low, high = everything.min(axis=0), everything.max(axis=0)
    first, rows = next(iter(both.values())), []
    for of, one in points.items():
        near = one["quality"][np.abs(one["cost"] / budget.limit - 1.0) <= LANDED]
        draws = draws_to_land(one["cost"], budget)
        rows.append(
            {
                "of": of,
                "near": float(near.mean()) if len(near) else None,
                "landed": landed(one["cost"], budget),
                "draws": float(draws) if np.isfinite(draws) else None,
                "beaten": float(beaten(both[of], first).mean()),
                "hypervolume": hypervolume(both[of], low, high),
            }
        )
    return rows


def _budget(source: Path, windows: Windows) -> Budget:
    """The first one of the search, of networks."""
    from sartor.predictors import load
    from sartor.spaces.complexity import COUNTED, Complexity

    result = read_json(source / "result.json")
    first = result["budgets"][0]
    name = str(first["metric"])
    if name in COUNTED:
        score: Score = Complexity(windows.of, name)
    else:
        score = load(source / f"predictor-{name}.safetensors", space=windows.of)
    return Budget(score, float(first["limit"]), first["sense"])
