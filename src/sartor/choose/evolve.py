"""Evolution: choosers that change what they know to be good."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from sartor.choose.sample import RandomSearch
from sartor.core import Architecture, F, SearchSpace, UserError

_TRIES = 100


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
        fresh = dict.fromkeys(arch for arch in map(self.space.canonical, archs) if arch not in self.told)
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
