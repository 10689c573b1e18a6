"""Operator lookup table: every piece measured alone, and the sum."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from sartor.core import F, Json, Part, Terms, UserError
from sartor.predictors.base import Predictor
from sartor.spaces.complexity import part_terms

if TYPE_CHECKING:
    from torch import Tensor


class Lookup(Predictor):
    """Sum of the costs of a network's parts, each measured alone.

    parts: cost of a part by its key, a mapping or a function, in the metric's unit; intercept: add the mean
    difference to the whole networks it is fitted on (slope 1, as the LightNAS thesis removes its table's bias).
    Works on spaces whose parts depend on one choice alone. Raises UserError for a part without a cost.
    """

    key = "lookup"

    def __init__(
        self, parts: Mapping[str, float] | Callable[[str], float] | None = None, intercept: bool = True
    ) -> None:
        super().__init__()
        self._costs, self.intercept = parts, intercept

    def _fit(self, archs: Sequence[Sequence[int]], values: F) -> dict[str, Json]:
        self._terms = part_terms(self.space, self._cost)
        bias = float(np.mean(values - self._terms(self.space, archs)))
        if self.intercept:
            self._terms = Terms(self._terms.const + bias, self._terms.unary)
        return {"bias": bias}

    def _cost(self, part: Part) -> float:
        try:
            cost = self._costs(part.key) if callable(self._costs) else float((self._costs or {})[part.key])
        except KeyError:
            raise UserError(f"the lookup table has no cost of part {part.key!r}; measure it first.") from None
        if not np.isfinite(cost):
            raise UserError(f"part {part.key!r} could not be measured; the lookup table needs it: measure it again.")
        return cost

    def _predict(self, archs: Sequence[Sequence[int]]) -> F:
        return self._terms(self.space, archs)

    def terms(self) -> Terms:
        self._fitted()
        return self._terms

    def soft(self, gates: tuple[Tensor, ...]) -> Tensor:
        return self.terms().soft(self.space.slots, gates)

    def _arrays(self) -> dict[str, F]:
        return {"const": np.array([self._terms.const]), "columns": np.concatenate([np.zeros(0), *self._terms.unary])}

    def _restore(self, arrays: dict[str, F]) -> None:
        ends, columns = self.space.offsets, arrays["columns"]
        self._terms = Terms(float(arrays["const"][0]), tuple(columns[a:b] for a, b in pairwise(ends)))
