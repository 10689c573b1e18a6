"""Predictors on tables: the one that has earned it, how far it may be trusted, and all of them compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from sartor.core import Architecture, F, Json, Metric, Score, SearchSpace, Terms
from sartor.predictors import PREDICTORS, Predictor
from sartor.predictors.evaluate import evaluate, splits
from sartor.tables import Table

_FOLDS = 5
_NEEDS_PARTS = "lookup"
_QUICK = ("ridge", "pairs", "mlp")
_SURE = 0.98  # of a predicted cost


class Cautious(Score):
    """A cost as predictors see it from some rows, and above it what they may be wrong by: 98 of 100 cost less.

    The margin is that quantile of what the rows, each predicted from other folds, cost more than was predicted;
    predicted and measured cost are compared as a ratio, as large networks are mispredicted by more.
    """

    def __init__(self, space: SearchSpace, archs: Sequence[Architecture], values: F, metric: Metric) -> None:
        self.space, self.metric, self._earned = space, metric, Earned()
        self.predictor = self._earned.fit(space, archs, values, metric=metric)
        folds = self._earned.folds
        ratios = [
            values[held] / machine([archs[i] for i in held])
            for machine, (_, held) in zip(folds, splits(len(archs), len(folds), None, 0) if folds else ())
        ]
        self.margin = float(np.quantile(np.concatenate(ratios), _SURE)) if ratios else 1.0

    def __call__(self, archs: Sequence[Sequence[int]]) -> F:
        return self.margin * self.predictor(archs)

    def terms(self) -> Terms | None:
        terms = self.predictor.terms()
        return None if terms is None else terms.times(self.margin)


class Earned:
    """Stands where a predictor is to be fitted, and becomes the one that has earned it: what sartor would use.

    Cross-validation on the rows it is fitted on chooses, and only they do, among the quick ones: five folds of graph
    networks take longer than they have won. chosen: how often which was; folds: the last chosen, fitted on all rows
    but those of each fold.
    """

    def __init__(self, chosen: Counter[str] | None = None) -> None:
        self.chosen: Counter[str] = Counter() if chosen is None else chosen
        self.folds: list[Predictor] = []

    def fit(self, space: SearchSpace, archs: Sequence[Architecture], values: F, *, metric: Metric) -> Predictor:
        """The chosen predictor, fitted on the same rows; ridge where they are too few to choose by."""
        name, folds = "ridge", min(_FOLDS, len(archs) // 2)
        if folds > 1:
            makers, made = _makers(), {name: list[Predictor]() for name in _QUICK}

            def make(name: str) -> Predictor:
                made[name].append(makers[name]())
                return made[name][-1]

            quick = {name: partial(make, name) for name in _QUICK if name in makers}
            rows = evaluate(quick, space, archs, values, metric=metric, count=folds)
            name = next(str(row["predictor"]) for row in rows if row["default"])
            self.folds = made[name]
        self.chosen[name] += 1
        return PREDICTORS.make(name).fit(space, archs, values, metric=metric)


def _makers() -> dict[str, Callable[[], Predictor]]:
    return {name: partial(PREDICTORS.make, name) for name in PREDICTORS if name != _NEEDS_PARTS}


def compare_predictors(table: Table, cost: str, sizes: Sequence[int], seeds: int, seed: int = 0) -> dict[str, Json]:
    """Every predictor that needs rows alone, on random training sets of each size, graded on all other rows.

    `rows`: means over `seeds` training sets, and standard deviations (n - 1) as NAME_std; the row named `default` is
    what sartor would use, and `chosen` there how often that was which. Raises UserError where the rows are too few.
    """
    score = table.score(cost)
    archs, rows = list(table.row), []
    for size in sizes:
        chosen: Counter[str] = Counter()
        makers: dict[str, Any] = {**_makers(), "default": partial(Earned, chosen)}
        for row in evaluate(
            makers, table.space, archs, score.values, metric=score.metric, train=size, count=seeds, seed=seed
        ):
            kept = {k: v for k, v in row.items() if k not in ("default", "dropped", "noise_floor", "rmse_splits")}
            rows.append(kept | ({"chosen": dict(chosen)} if row["predictor"] == "default" else {}))
    return {
        "space": table.space.spec(),
        "cost_column": cost,
        "metric": score.metric.name,
        "unit": score.metric.unit,
        "left_out": int((~np.isfinite(score.values)).sum()),
        "repeated": table.repeated,
        "seeds": seeds,
        "rows": rows,
    }
