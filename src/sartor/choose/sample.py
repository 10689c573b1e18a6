"""Random search: the chooser that every other one is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sartor.core import Architecture, F, SearchSpace, UserError


class RandomSearch:
    """Asks for architectures drawn uniformly over the networks of a space, none of them twice.

    batch: how many `ask` gives at a time, fewer at the end of a small space, then none; seed: of its draws. Its state
    is what was told; the draws are a pure function of the seed and of how many were asked for.
    """

    def __init__(self, space: SearchSpace, *, batch: int = 1, seed: int = 0) -> None:
        if batch < 1:
            raise UserError(f"batch={batch} is not possible; give a whole number from 1 up.")
        self.space, self.batch, self.seed = space, batch, seed
        self.told: dict[Architecture, float] = {}

    def ask(self) -> list[Architecture]:
        """Up to `batch` architectures that have not been told yet."""
        left = self.space.size - len(self.told)
        rng, new = np.random.default_rng([self.seed, len(self.told)]), dict[Architecture, None]()
        if left <= len(self.told):  # drawing would mostly repeat what is known
            rest = [arch for arch in self.space.enumerate() if arch not in self.told]
            return [rest[i] for i in rng.permutation(len(rest))[: self.batch]]
        while len(new) < min(self.batch, left):
            arch = self.space.sample(rng, 1)[0]
            if arch not in self.told:
                new[arch] = None
        return list(new)

    def tell(self, archs: Sequence[Architecture], values: F) -> None:
        """Values of architectures, in the order given; NaN is a failure and is not asked for again."""
        if len(archs) != len(values):
            raise ValueError(f"{len(archs)} architectures and {len(values)} values")
        self.told.update(zip(self.space.canonicals(archs), map(float, values)))

    def state_dict(self) -> dict[str, Any]:
        return {"told": [[list(arch), value] for arch, value in self.told.items()]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.told = {tuple(arch): float(value) for arch, value in state["told"]}
