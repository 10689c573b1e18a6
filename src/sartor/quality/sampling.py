"""Which networks to ask about: first any, then those that the best may be among."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sartor.choose.evolve import mutate
from sartor.choose.exact import ENUMERATE
from sartor.choose.neighbours import single_changes
from sartor.choose.sample import RandomSearch
from sartor.choose.solve import best_within
from sartor.core import Architecture, Budget, Metric, Score, SearchSpace, Terms, UserError
from sartor.quality.estimate import LEAST, Estimate

QUICK = ("ridge", "pairs", "svm")  # members of the estimates that guide: graph networks take longer than a round may
_REACH = 1.0  # deviations added to the estimate of what is asked about next
_DRAWS, _BEST, _CHILDREN = 4096, 16, 1024  # in a space that is too large to look at every network
_SECONDS = 10.0  # for the program of one round
_STARTS, _WALKS = 8, 4  # random programs, and lengths of a walk after which it is given up


class ActiveSampling(RandomSearch):
    """Asks about `first` networks drawn uniformly, then, `batch` at a time, about those whose quality may be highest.

    That is the estimate from all answers so far plus its deviation (upper confidence bound; P. Auer, JMLR 3, 2002):
    over every network, or in spaces of more than 20,000 over random ones, changes of the best, and the optimum of the
    estimate's polynomial with all its single changes. Only networks within the budgets are asked about; where too few
    that are drawn are, random walks within them go on from solutions of random programs. members: of the estimate.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        metric: Metric,
        first: int,
        batch: int = 32,
        budgets: Sequence[Budget] = (),
        members: Sequence[str] = QUICK,
        seed: int = 0,
    ) -> None:
        super().__init__(space, batch=batch, seed=seed)
        if first < LEAST:
            raise UserError(f"first={first} random networks are too few to estimate from; give {LEAST} or more.")
        self.metric, self.first, self.budgets, self.members = metric, first, budgets, tuple(members)
        self.sign = 1.0 if metric.better == "more" else -1.0
        self._every: list[Architecture] | None = None
        self._ends: list[Architecture] | None = None

    @property
    def answers(self) -> dict[Architecture, float]:
        """What was told and is a number."""
        return {arch: value for arch, value in self.told.items() if np.isfinite(value)}

    def ask(self) -> list[Architecture]:
        few = len(self.answers) < LEAST
        if len(self.told) < self.first or few:
            asked = self._random(self.batch if few else min(self.batch, self.first - len(self.told)))
            if asked or few:
                return asked
        rng = np.random.default_rng([self.seed, len(self.told), 1])
        estimate = self.estimate(self.members)
        pool = [arch for arch in self._pool(rng, estimate) if arch not in self.told]
        if not pool:
            return []
        mean, deviation = estimate.normal(pool)
        return [pool[i] for i in np.argsort(-(mean + _REACH * deviation), kind="stable")[: self.batch]]

    def estimate(self, members: Sequence[str]) -> Estimate:
        """What the answers so far tell."""
        values = np.array(list(self.told.values()))
        return Estimate(
            self.space,
            list(self.told),
            values,
            metric=self.metric,
            uniform=self.first,
            members=members,
            seed=self.seed,
        )

    def _random(self, count: int) -> list[Architecture]:
        """Up to `count` that respect the limits and are not known; fewer where they are hard to find."""
        rng, new = np.random.default_rng([self.seed, len(self.told)]), dict[Architecture, None]()
        if self.space.size <= ENUMERATE:
            rest = [arch for arch in self._whole() if arch not in self.told]
            return [rest[i] for i in rng.permutation(len(rest))[:count]]
        for _ in range(64):
            drawn = inside(self.space.sample(rng, 4 * count), self.budgets)
            new |= dict.fromkeys(arch for arch in drawn if arch not in self.told)
            if len(new) >= count:
                break
        if len(new) < count:
            new |= dict.fromkeys(self._walks(count, rng))
        return list(new)[:count]

    def _walks(self, count: int, rng: np.random.Generator) -> list[Architecture]:
        """Networks within limits that are hard to hit: many single changes away from solutions of random programs."""
        at: list[Architecture] = []
        for _ in range(_STARTS):
            reward = Terms(0.0, tuple(rng.standard_normal(len(slot)) for slot in self.space.slots))
            found = best_within(self.space, reward, self.budgets, rng=rng, seconds=_SECONDS / _STARTS)
            at += inside([found.architecture], self.budgets)
        new = dict[Architecture, None]()
        steps = 2 * len(self.space.slots)
        at = (at * count)[: max(count, len(at))]
        for _ in range(_WALKS * steps if at else 0):
            moved = [mutate(self.space, arch, rng) for arch in at]
            kept = set(inside(moved, self.budgets))
            at = [move if move in kept else arch for move, arch in zip(moved, at)]
            steps -= 1
            if steps <= 0:
                new |= dict.fromkeys(arch for arch in at if arch not in self.told)
                if len(new) >= count:
                    break
        return list(new)

    def _pool(self, rng: np.random.Generator, estimate: Estimate) -> list[Architecture]:
        """Every network that may be the result, or many in a space that is too large."""
        if self.space.size <= ENUMERATE:
            if self._ends is None:
                self._ends = admissible(self._whole(), self.budgets)
            return self._ends
        known = self.answers
        best = sorted(known, key=lambda arch: self.sign * known[arch], reverse=True)[:_BEST]
        top = best_within(self.space, estimate.polynomial(), self.budgets, rng=rng, seconds=_SECONDS).architecture
        pool = [top, *single_changes(self.space, top)]
        for _ in range(_CHILDREN):
            child = best[int(rng.integers(len(best)))]
            for _ in range(int(rng.integers(1, 4))):
                child = mutate(self.space, child, rng)
            pool.append(child)
        return admissible(list(dict.fromkeys([*pool, *self.space.sample(rng, _DRAWS)])), self.budgets)

    def _whole(self) -> list[Architecture]:
        if self._every is None:
            self._every = inside(list(self.space.enumerate()), self.budgets)
        return self._every


def inside(archs: list[Architecture], budgets: Sequence[Budget]) -> list[Architecture]:
    """Those that respect every limit."""
    return _kept(archs, [(b.score, b.feasible) for b in budgets])


def admissible(archs: list[Architecture], budgets: Sequence[Budget]) -> list[Architecture]:
    """Those that respect every limit, and land where a budget is to be met on both sides."""
    return _kept(archs, [(b.score, b.lands if b.sense == "at" else b.feasible) for b in budgets])


def _kept(archs: list[Architecture], tests: Sequence[tuple[Score, Callable[[float], bool]]]) -> list[Architecture]:
    kept = np.ones(len(archs), dtype=bool)
    for score, keeps in tests if archs else ():
        kept &= [keeps(float(cost)) for cost in score(archs)]
    return [arch for arch, ok in zip(archs, kept) if ok]
