"""What a space that was found is worth, beside all of the space that it was found in."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from sartor.core import Budget, F, Json, Metric, Score, Task, UserError
from sartor.quality.spaces import beaten, draws_to_land, hypervolume, near, principled
from sartor.runs import Run, read_json
from sartor.spaces.windows import Windows
from sartor.workflow.networks import load_found

_DRAWN = 10**5  # networks whose costs say how soon one lands
ORIGINS = ("all", "the space found", "RegNet's principle")


def found_space(source: Path, predictor: Path | None = None) -> tuple[Windows, tuple[int, ...], Budget]:
    """Windows, which of them were found, and the first budget of that search, of networks.

    predictor: of its metric, default the one that the run fitted. Raises UserError for a run that found no space, and
    for one that has no predictor.
    """
    from sartor.predictors import load
    from sartor.spaces.complexity import COUNTED, Complexity

    windows, arch = load_found(source)
    result = source / "result.json"
    if not isinstance(windows, Windows) or not result.exists():
        raise UserError(f"{source} holds no space; give the run of a `sartor search network-space-search`.")
    first = read_json(result)["budgets"][0]
    name, fitted = str(first["metric"]), source / f"predictor-{first['metric']}.safetensors"
    if name not in COUNTED and predictor is None and not fitted.exists():
        raise UserError(f"{source} fitted no predictor of {name}; give the one it was given as --predictor FILE.")
    score: Score = Complexity(windows.of, name) if name in COUNTED else load(predictor or fitted, space=windows.of)
    return windows, arch, Budget(score, float(first["limit"]), first["sense"])


def space_report(
    windows: Windows,
    arch: tuple[int, ...],
    budget: Budget,
    task: Task,
    run: Run,
    *,
    networks: int = 100,
    epochs: int = 50,
    batch_size: int = 64,
) -> dict[str, Json]:
    """Networks of the space found, of the Expanded Space, and of RegNet's principle in that: at equal cost, and any.

    Quality is told by a supernet that is trained for that alone, on all of the Expanded Space, so that what it says of
    any has the same weights; it is of `valid`, which the search has seen, too. networks: of each, drawn uniformly, and
    as many again of those within 10 % of the budget, of which there may be fewer; epochs, batch_size: of the supernet.
    Supernet and grades are kept in `run`.
    """
    from sartor.quality.supernet import Remembered, SupernetScore, train_supernet

    rng, of = run.rng("networks"), windows.of
    origins = (partial(of.sample, rng), partial(windows.members, arch, rng), partial(principled, of, rng))
    drawn = {name: draw(networks) for name, draw in zip(ORIGINS, origins)}
    close = {name: near(draw, budget, networks) for name, draw in zip(ORIGINS, origins)}
    draws = {name: draws_to_land(budget.score(draw(_DRAWN)), budget) for name, draw in zip(ORIGINS, origins)}
    supernet = train_supernet(of, task, run.stage("supernet"), epochs=epochs, batch_size=batch_size)
    score = Remembered(SupernetScore(of, supernet, task), run.stage("grades"))
    points = {
        name: {
            "quality": score(drawn[name]),
            "cost": budget.score(drawn[name]),
            "near quality": score(close[name]),
            "near cost": budget.score(close[name]),
        }
        for name in ORIGINS
    }
    return {
        "metric": score.metric.name,
        "cost": budget.score.metric.name,
        "limit": budget.limit,
        "rows": _compared(points, draws, score.metric),
        "points": {name: {key: values.tolist() for key, values in one.items()} for name, one in points.items()},
    }


def _compared(
    points: Mapping[str, Mapping[str, F]], draws: Mapping[str, float], metric: Metric
) -> list[dict[str, Json]]:
    """A line for each origin of networks; those within 10 % of the budget are held against those of all."""
    sign = -1.0 if metric.better == "more" else 1.0
    both = {name: np.column_stack([sign * one["near quality"], one["near cost"]]) for name, one in points.items()}
    everything = np.concatenate(list(both.values()))
    rows = []
    for name, values in both.items():
        some = bool(len(values))
        low, high = (everything.min(axis=0), everything.max(axis=0)) if some else (np.zeros(2), np.ones(2))
        rows.append(
            {
                "of": name,
                "networks": len(values),
                "near": float(points[name]["near quality"].mean()) if some else None,
                "draws": float(draws[name]) if np.isfinite(draws[name]) else None,
                "beaten": float(beaten(values, both[ORIGINS[0]]).mean()) if some and len(both[ORIGINS[0]]) else None,
                "hypervolume": hypervolume(values, low, high) if some and np.all(high > low) else None,
            }
        )
    return rows
