"""Several objectives at once: which networks none beats in all of them, and evolution towards those."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sartor.choose.evolve import Population, Within
from sartor.core import Architecture, F, SearchSpace


def front(values: F) -> npt.NDArray[np.int64]:
    """Rows of (n, objectives), less being better, that no other row is as good as in all and better in one."""
    from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

    found: npt.NDArray[np.int64] = NonDominatedSorting().do(values, only_non_dominated_front=True)
    return np.sort(found)


class NSGA2(Population):
    """Evolution towards a front: ranks by non-dominated sorting, within a rank the lonely first.

    K. Deb et al., "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", IEEE TEC 2002, with pymoo's sorting
    and crowding distances. A generation is the `population` best of the last one and as many children, whose parents
    win tournaments of two. Children are made as in `Population`, which the other options are of.

    better: which values of each objective are. `tell` takes (n, objectives), and `told` has the first of them; a NaN in
    any is a failure.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        better: Sequence[Literal["less", "more"]],
        population: int = 50,
        gene_rate: float = 0.1,
        within: Within | None = None,
        start: Sequence[Architecture] = (),
        again: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(
            space,
            population=2 * population,
            keep=population,
            gene_rate=gene_rate,
            within=within,
            start=start,
            again=again,
            seed=seed,
        )
        self.signs = np.array([1.0 if way == "less" else -1.0 for way in better])
        self.values: dict[Architecture, tuple[float, ...]] = {}

    def tell(self, archs: Sequence[Architecture], values: F) -> None:
        values = np.asarray(values, dtype=np.float64).reshape(len(archs), len(self.signs))
        super().tell(archs, np.where(np.isfinite(values).all(axis=1), values[:, 0], np.nan))
        self.values.update(zip(map(self.space.canonical, archs), (tuple(row) for row in values.tolist())))

    def best(self) -> list[Architecture]:
        """The members that have values: rank by rank, and within one the most distant from its neighbours first."""
        from pymoo.operators.survival.rank_and_crowding.metrics import calc_crowding_distance
        from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

        known = [arch for arch in self.members if np.isfinite(self.told.get(arch, np.nan))]
        if not known:
            return []
        values = self._signed(known)
        order: list[Architecture] = []
        for rank in NonDominatedSorting().do(values):
            apart = calc_crowding_distance(values[rank])
            order += [known[rank[i]] for i in np.argsort(-apart, kind="stable")]
        return order

    def front(self) -> list[Architecture]:
        """Of all that was told, what nothing else beats; by the first objective."""
        known = [arch for arch, value in self.told.items() if np.isfinite(value)]
        return sorted((known[i] for i in front(self._signed(known))), key=lambda a: self.values[a]) if known else []

    def _picked(self, rng: np.random.Generator, parents: int, *size: int) -> npt.NDArray[np.int64]:
        """The better of two, which stands before the other."""
        drawn: npt.NDArray[np.int64] = rng.integers(parents, size=(2, *size)).min(axis=0)
        return drawn

    def _signed(self, archs: Sequence[Architecture]) -> F:
        signed: F = self.signs * np.array([self.values[arch] for arch in archs])
        return signed

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "values": [list(self.values[arch]) for arch in self.told]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.values = dict(zip(self.told, map(tuple, state["values"])))
