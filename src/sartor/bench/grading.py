"""A table hands methods what they may ask, and grades what they found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np

from sartor.bench.asking import ASKING, BASELINES, Asked
from sartor.bench.predicting import Cautious
from sartor.core import Architecture, Json, Score, Unreachable, UserError, show
from sartor.core.progress import progress
from sartor.methods import METHODS
from sartor.runs import Run
from sartor.tables import Table


@dataclass(frozen=True)
class Job:
    """What methods are compared on.

    accuracy, test, costs: columns; test: what the found network is graded by; limits: of each cost, with its unit;
    cost_rows: predictors of the costs are fitted on that many random rows, None: the table answers every question.
    """

    method: str
    accuracy: str
    test: str
    costs: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    queries: int = 781
    seeds: int = 5
    cost_rows: int | None = None


def compare_methods(
    table: Table,
    job: Job,
    run: Run,
    baselines: Sequence[str] = BASELINES,
    predicted: Callable[[str, int], Score] | None = None,
) -> dict[str, Json]:
    """The method beside others, by default random search and regularised evolution, over seeds from the run's up.

    predicted: what is believed of a cost, by column and seed, where the job has cost rows; default: fitted anew.
    Rows that lack a number of the job's columns are left out of everything and counted. Raises UserError for a method
    that trains, a column of the wrong kind and a budget without cost, Unreachable for budgets that no network keeps.
    """
    grader = _Grader(table, job, predicted)
    names = list(dict.fromkeys((job.method, *baselines)))
    work = [(name, run.seed + i) for i in range(job.seeds) for name in names]
    points = [
        run.memo(f"{n} {seed}", partial(grader.search, n, seed)) for n, seed in progress(work, "search", len(work))
    ]
    graded = {name: grader.summary(name, [p for p in points if p["method"] == name]) for name in names}
    return {
        **graded[job.method],
        "baselines": {name: graded[name] for name in baselines},
        "space": table.space.spec(),
        "rows": len(grader.usable),
        "left_out": grader.left_out,
        "repeated": table.repeated,
        "seeds": job.seeds,
        "accuracy_column": job.accuracy,
        "test_column": job.test,
        "cost_columns": list(job.costs),
        "cost": grader.source,
        "budgets": grader.limits,
        "points": points,
    }


class _Grader:
    """The table's usable rows: it hands methods what they may ask, and grades what they found."""

    def __init__(self, table: Table, job: Job, predicted: Callable[[str, int], Score] | None) -> None:
        if job.method not in ASKING and job.method in METHODS:
            raise UserError(
                f"method {job.method!r} trains a supernet instead of asking for scores; bench compares "
                f"{', '.join(ASKING)}: run `sartor search {job.method} --space {table.space.name}` and look its "
                "network up in the table."
            )
        ASKING[job.method]
        if len(job.costs) != len(job.limits) or len(set(job.costs)) < len(job.costs):
            raise UserError(
                f"costs {', '.join(job.costs) or 'none'} and budgets {', '.join(job.limits) or 'none'} do not pair; "
                "give both, one budget for each column in the same order, and no column twice."
            )
        if job.cost_rows is not None and not job.costs:
            raise UserError(f"{job.cost_rows} cost rows are of no use without a cost; give its column and a budget.")
        self.job, self.space = job, table.space
        scores = {name: table.score(name) for name in (job.accuracy, job.test, *job.costs)}
        for name in (job.accuracy, job.test):
            if scores[name].metric.better != "more":
                raise UserError(
                    f"column {name!r} is a {scores[name].metric.name}, of which less is better; "
                    "give a column of accuracies."
                )
        whole = np.all([np.isfinite(score.values) for score in scores.values()], axis=0).tolist()
        self.usable = [arch for arch, i in table.row.items() if whole[i]]
        self.left_out = len(table.row) - len(self.usable)
        self.values = {
            name: {arch: float(score.values[table.row[arch]]) for arch in self.usable} for name, score in scores.items()
        }
        self.metrics = {name: score.metric for name, score in scores.items()}
        self.source = None if not job.costs else "known" if job.cost_rows is None else "predicted"
        if not self.usable:
            raise UserError(f"no row has numbers in all of {', '.join(scores)}; give other columns.")
        if job.cost_rows is not None and job.cost_rows > len(self.usable):
            raise UserError(
                f"a predictor cannot be fitted on {job.cost_rows} cost rows; "
                f"{len(self.usable)} rows have every number: give fewer."
            )
        self.limits = [self._limit(cost, limit) for cost, limit in zip(job.costs, job.limits)]
        self.inside = [arch for arch in self.usable if self.meets(arch)]
        if not self.inside:
            raise Unreachable(f"no network of the table is within {' and '.join(job.limits)} together; raise one.")
        self.predicted = predicted or cache(self._predicted)

    def _limit(self, cost: str, limit: str) -> dict[str, Json]:
        metric, known = self.metrics[cost], self.values[cost].values()
        budget = Asked(self.space, metric, {}).at(limit)
        if budget.limit < min(known):
            raise Unreachable(
                f"no network of the table is within {limit} by {cost!r}; they reach from {show(min(known), metric)} "
                f"to {show(max(known), metric)}: give a budget in that range."
            )
        return {"metric": metric.name, "limit": budget.limit, "unit": metric.unit, "sense": budget.sense}

    def meets(self, arch: Architecture | None) -> bool:
        """Whether the table has the network within every limit."""
        return arch in self.values[self.job.test] and all(
            self.values[cost][arch] <= known["limit"] for cost, known in zip(self.job.costs, self.limits)
        )

    def _predicted(self, cost: str, seed: int) -> Cautious:
        """The cost as a predictor that cross-validation chooses, fitted on random rows, and what it may be wrong by."""
        pick = np.random.default_rng([seed, 1]).permutation(len(self.usable))[: self.job.cost_rows]
        archs, known = [self.usable[i] for i in pick], self.values[cost]
        return Cautious(self.space, archs, np.array([known[arch] for arch in archs]), self.metrics[cost])

    def search(self, name: str, seed: int) -> dict[str, Json]:
        """One search, graded by the table."""
        job = self.job
        costs: dict[str, Score] = {
            cost: Asked(self.space, self.metrics[cost], self.values[cost])
            if job.cost_rows is None
            else self.predicted(cost, seed)
            for cost in job.costs
        }
        budgets = [score.at(limit) for score, limit in zip(costs.values(), job.limits)]
        quality = Asked(self.space, self.metrics[job.accuracy], self.values[job.accuracy], job.queries)
        arch, predicted = ASKING[name](self.space, quality, budgets, job.queries, seed)
        return {
            "method": name,
            "seed": seed,
            "architecture": None if arch is None else list(arch),
            "accuracy": None if arch is None else self.values[job.accuracy].get(arch),
            "test": None if arch is None else self.values[job.test].get(arch),
            "costs": {cost: None if arch is None else self.values[cost].get(arch) for cost in job.costs},
            "met": self.meets(arch),
            **self._ordered(predicted, quality.read),
            "accuracy_rows": len(quality.read),
            "cost_rows": sum(len(s.read) if isinstance(s, Asked) else job.cost_rows or 0 for s in costs.values()),
        }

    def _ordered(self, predicted: Score | None, read: set[Architecture]) -> dict[str, float | None]:
        """Rank correlation with the test accuracy: of the networks that were not asked about, and of all."""
        from scipy.stats import spearmanr

        if predicted is None:
            return {"spearman": None, "spearman_all": None}
        said, values = predicted(self.usable), np.array([self.values[self.job.test][arch] for arch in self.usable])
        new = np.array([arch not in read for arch in self.usable])
        return {
            name: float(spearmanr(said[kept], values[kept]).statistic) if kept.sum() > 1 else None
            for name, kept in (("spearman", new), ("spearman_all", np.ones_like(new)))
        }

    def summary(self, name: str, points: Sequence[Mapping[str, Any]]) -> dict[str, Json]:
        """Means over seeds; `test_std` is the standard deviation of a sample (n - 1)."""
        test = self.values[self.job.test]

        def known(key: str) -> list[float]:
            return [p[key] for p in points if p[key] is not None]

        tests, correlations = known("test"), known("spearman")
        return {
            "method": name,
            "queries": self.job.queries,
            "optimum_test": max(test[arch] for arch in self.inside),
            "test_mean": float(np.mean(tests)) if tests else None,
            "test_std": float(np.std(tests, ddof=1)) if len(tests) > 1 else None,
            "spearman_mean": float(np.mean(correlations)) if correlations else None,
            "budget_met_share": float(np.mean(known("met"))) if self.limits else None,
            "accuracy_rows": float(np.mean(known("accuracy_rows"))),
            "cost_rows": float(np.mean(known("cost_rows"))),
        }
