"""Methods and predictors on tables with known answers: methods ask, tables grade.

A method here only asks for scores. It is a function of (space, quality, budgets, queries, seed): `quality` answers at
most so many different architectures, `budgets` may be asked without end. It returns the architecture it found, None
for none, and a score of its own that predicts quality, None where it has none. It never sees the column that it is
graded by.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, TypeAlias

import numpy as np

from sartor.choose.evolve import Evolution
from sartor.choose.sample import RandomSearch
from sartor.core import (
    Architecture,
    Budget,
    F,
    Json,
    Metric,
    Registry,
    Score,
    SearchSpace,
    Terms,
    Unreachable,
    UserError,
    show,
)
from sartor.core.progress import progress
from sartor.methods import METHODS
from sartor.methods.mathnas import Learned, MathNAS
from sartor.predictors import PREDICTORS, Predictor
from sartor.predictors.evaluate import evaluate, splits
from sartor.quality.blocks import additive_macs, base_network, block_score
from sartor.quality.sampling import inside
from sartor.runs import Run
from sartor.tables import Table

Answer: TypeAlias = tuple[Architecture | None, Score | None]
_BATCH = 32
_FOLDS = 5
_NEEDS_PARTS = "lookup"
_QUICK = ("ridge", "pairs", "mlp")
_SURE = 0.98  # of a predicted cost


class Asked(Score):
    """Known values of architectures, and nothing else of the table they are from; NaN for all others.

    most: how many different ones it answers, None for any number; read: those it has. Raises ValueError beyond.
    """

    def __init__(
        self, space: SearchSpace, metric: Metric, values: Mapping[Architecture, float], most: int | None = None
    ) -> None:
        self.space, self.metric, self._values, self.most = space, metric, values, most
        self.read: set[Architecture] = set()

    def __call__(self, archs: Sequence[Sequence[int]]) -> F:
        known = self.space.canonicals(archs)
        new = {arch for arch in known if arch in self._values and arch not in self.read}
        if self.most is not None and len(self.read) + len(new) > self.most:
            raise ValueError(f"asked about {len(self.read) + len(new)} architectures, {self.most} are allowed")
        self.read |= new
        return np.array([self._values.get(arch, np.nan) for arch in known], dtype=np.float64)


# ---------------------------------------------------------------------- methods


def _ask(chooser: RandomSearch, quality: Score, budgets: Sequence[Budget], queries: int) -> Answer:
    """What a chooser asks for is told until the queries are spent; the best of it.

    What the budgets exclude and what the table lacks are failures that cost no query.
    """
    spent = 0
    while spent < queries and (asked := chooser.ask()):
        fitting = inside(asked, budgets)
        values = dict(zip(fitting, map(float, quality(fitting[: queries - spent]))))
        told = [arch for arch in asked if arch in values or arch not in fitting]
        chooser.tell(told, np.array([values.get(arch, np.nan) for arch in told]))
        spent += int(np.isfinite(list(values.values())).sum())
    sign = 1.0 if quality.metric.better == "more" else -1.0
    found = {arch: sign * value for arch, value in chooser.told.items() if np.isfinite(value)}
    return max(found, key=found.__getitem__, default=None), None


def random(space: SearchSpace, quality: Score, budgets: Sequence[Budget], queries: int, seed: int) -> Answer:
    """Random search among the networks within the budgets."""
    return _ask(RandomSearch(space, batch=_BATCH, seed=seed), quality, budgets, queries)


def evolution(space: SearchSpace, quality: Score, budgets: Sequence[Budget], queries: int, seed: int) -> Answer:
    """Regularised evolution, in which only networks within the budgets live."""
    return _ask(Evolution(space, better=quality.metric.better, seed=seed), quality, budgets, queries)


def mathnas(
    space: SearchSpace, quality: Score, budgets: Sequence[Budget], queries: int, seed: int, **settings: Any
) -> Answer:
    """MathNAS; settings: its hyper-parameters. It finds nothing where no network keeps the budgets as predicted."""
    engine = MathNAS.of({"queries": queries, **settings})
    with tempfile.TemporaryDirectory() as scratch, Run(scratch, {"verb": "bench"}, seed) as run:
        try:
            learned = engine.learn(space, quality, budgets, run)
            return engine.choose(space, learned, budgets, run.rng("choose")).architecture, learned.score
        except Unreachable:
            return None, None


def mathnas_answer(space: SearchSpace, quality: Score, budgets: Sequence[Budget], queries: int, seed: int) -> Answer:
    """The network that `mathnas` finds, sooner: answers decide, so that it predicts no others in the end."""
    return mathnas(space, quality, budgets, queries, seed, members=("ridge",))[0], None


def mathnas_blocks(space: SearchSpace, quality: Score, budgets: Sequence[Budget], queries: int, seed: int) -> Answer:
    """MathNAS as published, its differences measured in as many random contexts as the queries allow."""
    most = max(1, (queries - 1) // (sum(map(len, space.slots)) - len(space.slots) + 1))
    return mathnas(space, quality, budgets, queries, seed, predictor="blocks", contexts=most)


def lana(space: SearchSpace, quality: Score, budgets: Sequence[Budget], queries: int, seed: int) -> Answer:
    """What each block changes in the largest network, added up (P. Molchanov et al., LANA, ECCV 2022)."""
    macs = additive_macs(space)
    score = block_score(space, quality, macs, contexts=[base_network(space, macs)])
    found = MathNAS.of({"predictor": "blocks"}).choose(space, Learned(score), budgets, np.random.default_rng([seed, 2]))
    return found.architecture, score


def brp_nas(space: SearchSpace, quality: Score, budgets: Sequence[Budget], queries: int, seed: int) -> Answer:
    """A graph convolutional network on ranks instead of MathNAS's estimate, as in BRP-NAS (L. Dudziak et al., 2020)."""
    return mathnas(space, quality, budgets, queries, seed, members=("gcn",))


ASKING: Registry[Answer] = Registry(
    "method",
    {
        "random": random,
        "evolution": evolution,
        "mathnas": mathnas,
        "mathnas-answer": mathnas_answer,
        "mathnas-paper": partial(mathnas, predictor="blocks"),
        "mathnas-blocks": mathnas_blocks,
        "lana": lana,
        "brp-nas": brp_nas,
    },
)
BASELINES = ("random", "evolution")


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


# ---------------------------------------------------------------------- predictors


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
