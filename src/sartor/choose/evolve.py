"""Evolution: choosers that change what they know to be good."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sartor.choose.neighbours import changes_of
from sartor.choose.sample import RandomSearch
from sartor.core import Architecture, Budget, F, SearchSpace, UserError

_TRIES = 100
_ROUNDING = 1e-9  # of costs relative to limits, as in `Budget.lands`
_DRAWS, _ROUNDS = 50, 20  # at a time, and how often, before what is drawn is repaired


class Evolution(RandomSearch):
    """Regularised evolution: the best of a few changes in one place, and the oldest dies.

    E. Real et al., "Regularized Evolution for Image Classifier Architecture Search", AAAI 2019, algorithm 1.
    better: which values are; population (published: 100); sample: how many compete to be a parent, drawn with
    replacement (published: 25); batch: how many `ask` gives at a time once the population is there; seed: of its draws.
    Two things differ: none is asked for twice, as a table would answer the same (what is known is drawn anew, and where
    a hundred draws give nothing new, as many random ones as the population come in), and a failure (NaN) never lives.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        better: Literal["less", "more"] = "less",
        population: int = 100,
        sample: int = 25,
        batch: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(space, batch=batch, seed=seed)
        if population < 1 or sample < 1:
            raise UserError(f"population={population}, sample={sample} is not possible; give whole numbers from 1 up.")
        self.sign, self.population, self.sample = 1.0 if better == "more" else -1.0, population, sample
        self._alive: deque[Architecture] = deque(maxlen=population)

    def ask(self) -> list[Architecture]:
        """Random architectures until the population is full, then `batch` changed ones, fewer where nothing is new."""
        if len(self._alive) < self.population:
            return self._random(self.population - len(self._alive))
        rng, new = np.random.default_rng([self.seed, len(self.told)]), dict[Architecture, None]()
        for _ in range(_TRIES * self.batch):
            drawn = [self._alive[i] for i in rng.integers(len(self._alive), size=self.sample)]
            child = mutate(self.space, max(drawn, key=lambda arch: self.sign * self.told[arch]), rng)
            if child not in self.told:
                new[child] = None
            if len(new) == self.batch:
                break
        return list(new) or self._random(self.population)

    def tell(self, archs: Sequence[Architecture], values: F) -> None:
        fresh = dict.fromkeys(arch for arch in self.space.canonicals(archs) if arch not in self.told)
        super().tell(archs, values)
        self._alive.extend(arch for arch in fresh if np.isfinite(self.told[arch]))

    def _random(self, batch: int) -> list[Architecture]:
        search = RandomSearch(self.space, batch=batch, seed=self.seed)
        search.told = self.told
        return search.ask()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._alive.clear()
        self._alive.extend(arch for arch, value in self.told.items() if np.isfinite(value))


class Within:
    """The architectures that keep budgets, and the way to them.

    A cost `at` a limit has to land on it within the budget's tolerance, one `at_most` a limit may be anywhere below.
    """

    def __init__(self, space: SearchSpace, budgets: Sequence[Budget]) -> None:
        self.space, self.budgets = space, budgets

    def distance(self, archs: Sequence[Architecture]) -> F:
        """(n,) sum over budgets of how far costs are outside, relative to the limit; 0 within all; NaN is infinity."""
        total = np.zeros(len(archs))
        for budget in self.budgets if len(archs) else ():
            costs, (low, high) = budget.score(archs), budget.interval
            below = np.maximum(low - costs, 0.0) if budget.sense == "at" else 0.0
            total += (below + np.maximum(costs - high, 0.0)) / budget.limit
        return np.where(np.isnan(total), np.inf, np.where(total <= _ROUNDING, 0.0, total))

    def repaired(self, archs: Sequence[Architecture]) -> list[Architecture]:
        """The ends within of the steepest descents of `distance` by changes of one slot, in the order of the starts.

        Descents that end outside are left out.
        """
        at, far = list(archs), self.distance(archs)
        going = [i for i in range(len(at)) if far[i] > 0]
        while going:
            steps = changes_of(self.space, [at[i] for i in going])
            there = np.split(self.distance([arch for some in steps for arch in some]), np.cumsum(list(map(len, steps))))
            left = []
            for i, some, values in zip(going, steps, there):
                if len(values) and values.min() < far[i]:
                    at[i], far[i] = some[int(values.argmin())], values.min()
                    left += [i] if far[i] > 0 else []
            going = left
        return [arch for arch, value in zip(at, far) if value == 0]


class Population(RandomSearch):
    """Evolution of a population: the best stay, and cross and change to make the others.

    X. Luo et al., "LightNAS", Algorithm 2 of the thesis, with its numbers; Z. Guo et al. (SPOS) do the same. Each
    generation is the `keep` best of the last one, half of the rest with every choice taken from either of two of
    them, and half one of them with each choice drawn anew at the rate of `gene_rate` (the thesis has one rate of 0.5
    for both; half of all genes anew would be a search at random). Every member keeps the budgets: a thousand children
    of a kind are drawn, and where too few of them do, fifty are repaired; then random networks fill up, and where there
    are none, the generation is smaller. None is asked for twice, so that there is always something new, unless `again`:
    then the whole generation is, for scores that change with every answer.

    better: which values are; start: members of the first generation that keep the budgets, the others are random;
    within: the budgets, None: everything is; seed: of its draws, a stream for each generation and what is done in it.
    Its state is the generation and what was told; `asks` is how many members of the generation are asked about.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        better: Literal["less", "more"] = "more",
        population: int = 20,
        keep: int = 10,
        gene_rate: float = 0.1,
        within: Within | None = None,
        start: Sequence[Architecture] = (),
        again: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(space, seed=seed)
        if not 0 < keep < population:
            raise UserError(f"keep={keep} of population={population} is not possible; keep at least 1 and fewer.")
        if not 0 < gene_rate <= 1:
            raise UserError(f"gene_rate={gene_rate} is not possible; give a rate above 0 and at most 1.")
        self.sign = 1.0 if better == "more" else -1.0
        self.population, self.keep, self.gene_rate = population, keep, gene_rate
        self.within = within or Within(space, ())
        self.start, self.again = [space.canonical(arch) for arch in start], again
        self.generation, self.asks = 0, 0
        self.members: list[Architecture] = []
        self._waiting: set[Architecture] = set()

    def ask(self) -> list[Architecture]:
        """What has no value yet in this generation, or, where all have, the new ones of the next."""
        if not self._waiting:
            self.members = self._next() if self.members else self._first()
            self._waiting = {arch for arch in self.members if self.again or arch not in self.told}
            self.generation, self.asks = self.generation + 1, len(self._waiting)
        return [arch for arch in self.members if arch in self._waiting]

    def tell(self, archs: Sequence[Architecture], values: F) -> None:
        super().tell(archs, values)
        self._waiting -= set(self.space.canonicals(archs))

    @property
    def done(self) -> bool:
        """Whether every member of the generation has a value."""
        return not self._waiting

    def best(self) -> list[Architecture]:
        """The members that have a value, best first."""
        known = [arch for arch in self.members if np.isfinite(self.told.get(arch, np.nan))]
        return sorted(known, key=lambda arch: -self.sign * self.told[arch])

    def _first(self) -> list[Architecture]:
        """Line 1."""
        kept = dict.fromkeys(arch for arch, far in zip(self.start, self.within.distance(self.start)) if far == 0)
        found = list(kept)[: self.population]
        return found + self._made("random", self.population - len(found), self._any, set(found))

    def _next(self) -> list[Architecture]:
        """Lines 5 to 8."""
        parents, left = self.best()[: self.keep], self.population - self.keep
        members = list(parents)
        for name, make, count in (
            ("crossover", self._crossed, left // 2),
            ("mutation", self._mutated, left - left // 2),
        ):
            if parents:
                members += self._made(name, count, partial(make, parents), set(members))
        return members + self._made("random", len(parents) + left - len(members), self._any, set(members))

    def _made(
        self,
        name: str,
        count: int,
        make: Callable[[np.random.Generator, int], list[Architecture]],
        known: set[Architecture],
    ) -> list[Architecture]:
        """Up to `count` new architectures that keep the budgets, from the stream of that name."""
        rng = np.random.default_rng([self.seed, self.generation, zlib.crc32(name.encode())])
        made: dict[Architecture, None] = {}

        def fresh(arch: Architecture) -> bool:
            return arch not in known and arch not in self.told

        for _ in range(_ROUNDS):
            if len(made) < count:
                drawn = list(filter(fresh, dict.fromkeys(make(rng, _DRAWS))))
                made |= dict.fromkeys(arch for arch, far in zip(drawn, self.within.distance(drawn)) if far == 0)
        if len(made) < count and self.within.budgets:
            made |= dict.fromkeys(filter(fresh, self.within.repaired(make(rng, _DRAWS))))
        return list(made)[:count]

    def _picked(self, rng: np.random.Generator, parents: int, *size: int) -> npt.NDArray[np.int64]:
        """Which parents: any."""
        return rng.integers(parents, size=size)

    def _any(self, rng: np.random.Generator, n: int) -> list[Architecture]:
        return self.space.sample(rng, n)

    def _crossed(self, parents: Sequence[Architecture], rng: np.random.Generator, n: int) -> list[Architecture]:
        """Line 6: each choice from either of two, from the one that has the slot where only one has."""
        index = np.array(parents, dtype=np.int64)
        has = self.space.exists(index)
        one, other = self._picked(rng, len(parents), 2, n)
        first = (rng.random((n, index.shape[1])) < 0.5) & has[one] | ~has[other]
        return self.space.canonical_rows(np.where(first, index[one], index[other]))

    def _mutated(self, parents: Sequence[Architecture], rng: np.random.Generator, n: int) -> list[Architecture]:
        """Line 7: each choice drawn anew at a rate, and those that come to exist by it."""
        index = np.array(parents, dtype=np.int64)
        one = self._picked(rng, len(parents), n)
        anew = rng.random((n, index.shape[1])) < self.gene_rate
        drawn = rng.integers([len(slot) for slot in self.space.slots], size=anew.shape)
        return self.space.canonical_rows(np.where(anew | ~self.space.exists(index)[one], drawn, index[one]))

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "generation": self.generation,
            "asks": self.asks,
            "members": [list(arch) for arch in self.members],
            "waiting": [list(arch) for arch in self.members if arch in self._waiting],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.generation, self.asks = state["generation"], state["asks"]
        self.members = [tuple(arch) for arch in state["members"]]
        self._waiting = {tuple(arch) for arch in state["waiting"]}


def mutate(space: SearchSpace, arch: Architecture, rng: np.random.Generator) -> Architecture:
    """Another candidate in one existing slot that has several; slots that come to exist by it are drawn.

    The same architecture where no slot has a choice.
    """
    on = space.active(arch)
    slots = [i for i, slot in enumerate(space.slots) if on[i] and len(slot) > 1]
    if not slots:
        return arch
    changed = [k if exists else int(rng.integers(len(slot))) for slot, k, exists in zip(space.slots, arch, on)]
    chosen = slots[int(rng.integers(len(slots)))]
    other = int(rng.integers(len(space.slots[chosen]) - 1))
    changed[chosen] = other + (other >= arch[chosen])
    return space.canonical(changed)
