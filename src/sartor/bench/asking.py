"""Methods that only ask for scores.

Each is a function of (space, quality, budgets, queries, seed): `quality` answers at most so many different
architectures, `budgets` may be asked without end. It returns the architecture it found, None for none, and a score of
its own that predicts quality, None where it has none. It never sees the column that it is graded by.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from sartor.choose.evolve import Evolution
from sartor.choose.sample import RandomSearch
from sartor.core import Architecture, Budget, F, Metric, Registry, Score, SearchSpace, Unreachable
from sartor.methods.mathnas import Learned, MathNAS
from sartor.quality.blocks import additive_macs, base_network, block_score
from sartor.quality.sampling import inside
from sartor.runs import Run

Answer: TypeAlias = tuple[Architecture | None, Score | None]
_BATCH = 32


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
