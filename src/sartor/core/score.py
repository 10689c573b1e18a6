"""Numbers about architectures, cost and quality alike, and budgets on them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sartor.core.errors import UserError
from sartor.core.space import F, SearchSpace, Slot
from sartor.core.types import Architecture
from sartor.core.units import Metric, parse_limit, show

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Terms:
    """A score as a polynomial in the choices: (const + sum unary + sum pair) / over.

    unary: per slot (candidates,); pair: {(i, j): (candidates of i, candidates of j)} with i < j;
    over: the denominator where the score is a ratio. An inactive slot contributes nothing.
    """

    const: float
    unary: tuple[F, ...]
    pair: Mapping[tuple[int, int], F] = field(default_factory=dict)
    over: Terms | None = None

    def __call__(self, space: SearchSpace, archs: Sequence[Sequence[int]]) -> F:
        """(n,) values."""
        total = np.full(len(archs), self.const)
        if len(archs):
            index = np.asarray(archs, dtype=np.int64)
            on = space.exists(index)
            for i, values in enumerate(self.unary):
                total += np.where(on[:, i], values[index[:, i]], 0.0)
            for (i, j), values in self.pair.items():
                total += np.where(on[:, i] & on[:, j], values[index[:, i], index[:, j]], 0.0)
        return total if self.over is None else total / self.over(space, archs)

    def times(self, factor: float) -> Terms:
        """The polynomial times a number."""
        pair = {key: factor * table for key, table in self.pair.items()}
        return Terms(factor * self.const, tuple(factor * u for u in self.unary), pair, self.over)

    def among(self, keep: Sequence[Sequence[int]]) -> Terms:
        """The polynomial where only the candidates `keep` of each slot are left."""
        kept = [list(some) for some in keep]
        pair = {(i, j): table[np.ix_(kept[i], kept[j])] for (i, j), table in self.pair.items()}
        over = None if self.over is None else self.over.among(keep)
        return Terms(self.const, tuple(row[k] for row, k in zip(self.unary, kept)), pair, over)

    def soft(self, slots: Sequence[Slot], gates: Sequence[Tensor]) -> Tensor:
        """The same polynomial of gates (a probability or a straight-through one-hot per candidate).

        With probabilities and no denominator this is the exact expectation over independent slots.
        """
        weights = active_gates(slots, gates)
        total: Any = self.const
        for gate, values in zip(weights, self.unary):
            total = total + gate @ gate.new_tensor(values)
        for (i, j), values in self.pair.items():
            left, right = pair_gates(slots, gates, i, j)
            total = total + left @ left.new_tensor(values) @ right
        result: Tensor = total if self.over is None else total / self.over.soft(slots, gates)
        return result


def active_gates(slots: Sequence[Slot], gates: Sequence[Tensor]) -> list[Tensor]:
    """Gates times the probability that their slot exists."""
    exists: list[Any] = []
    for slot in slots:
        if slot.when is None:
            exists.append(1.0)
        else:
            parent, allowed = slot.when
            exists.append(exists[parent] * gates[parent][sorted(allowed)].sum())
    return [gate * on for gate, on in zip(gates, exists)]


def pair_gates(slots: Sequence[Slot], gates: Sequence[Tensor], i: int, j: int) -> tuple[Tensor, Tensor]:
    """Two vectors whose outer product is the probability of each choice of slots i < j, both existing.

    Their existence is not independent: what both depend on counts once, and i may be what j depends on.
    """
    needs: dict[int, frozenset[int]] = {}
    for slot in (i, j):
        when = slots[slot].when
        while when is not None:
            needs[when[0]] = needs.get(when[0], when[1]) & when[1]
            when = slots[when[0]].when
    left, right = gates[i], gates[j]
    for slot, allowed in needs.items():
        if slot == i:
            left = left * left.new_tensor([float(k in allowed) for k in range(len(slots[i]))])
        else:
            right = right * gates[slot][sorted(allowed)].sum()
    return left, right


class Score(ABC):
    """Architectures in, numbers out. Cost and quality alike; the metric says which way is better."""

    metric: Metric
    space: SearchSpace

    @abstractmethod
    def __call__(self, archs: Sequence[Sequence[int]]) -> F:
        """(n,) float64 in the metric's unit; NaN where the architecture failed."""

    def terms(self) -> Terms | None:
        """The exact polynomial form, or None when there is none."""
        return None

    def at(self, limit: str, sense: Literal["at", "at_most"] = "at_most") -> Budget:
        """A budget on this score, the limit typed with its unit: `latency.at("20ms")`."""
        metric, value = parse_limit(limit)
        if metric.name != self.metric.name:
            raise UserError(
                f"limit {limit!r} is on {metric.name}, this score gives {self.metric.name}; "
                f"write the limit in {self.metric.unit}."
            )
        return Budget(self, value, sense)


class FunctionScore(Score):
    """Any function of a space and one of its architectures; what it raises is raised, NaN is a failure."""

    def __init__(
        self, space: SearchSpace, metric: Metric, function: Callable[[SearchSpace, Architecture], float]
    ) -> None:
        self.space, self.metric, self.function = space, metric, function

    def __call__(self, archs: Sequence[Sequence[int]]) -> F:
        return np.array([self.function(self.space, self.space.canonical(arch)) for arch in archs], dtype=np.float64)


class SoftScore(Score):
    """A score that can also be asked about gates, differentiably."""

    @abstractmethod
    def soft(self, gates: tuple[Tensor, ...]) -> Tensor:
        """Scalar value of a relaxed architecture; equals the score at one-hot gates."""


class TermScore(SoftScore):
    """A score that is its terms."""

    def __init__(self, space: SearchSpace, metric: Metric, terms: Terms) -> None:
        self.space, self.metric, self._terms = space, metric, terms

    def __call__(self, archs: Sequence[Sequence[int]]) -> F:
        return self._terms(self.space, self.space.canonicals(archs))

    def terms(self) -> Terms:
        return self._terms

    def soft(self, gates: tuple[Tensor, ...]) -> Tensor:
        return self._terms.soft(self.space.slots, gates)


@dataclass(frozen=True)
class Budget:
    """An upper limit on a score.

    limit: in the metric's unit; sense: `at_most` asks for [1 - tolerance, 1] x limit, `at` for +-tolerance.
    """

    score: Score
    limit: float
    sense: Literal["at", "at_most"] = "at_most"
    tolerance: float = 0.005

    def __post_init__(self) -> None:
        if not 0 < self.limit < float("inf"):
            raise UserError(f"budget limit {self.limit!r} must be positive and finite.")

    @property
    def interval(self) -> tuple[float, float]:
        """Costs that land: lowest and highest."""
        high = 1.0 if self.sense == "at_most" else 1.0 + self.tolerance
        return self.limit * (1.0 - self.tolerance), self.limit * high

    def gap_percent(self, cost: float) -> float:
        """(cost / limit - 1) x 100, signed."""
        return (cost / self.limit - 1.0) * 100.0

    def lands(self, cost: float) -> bool:
        """Whether the cost lies in the interval, up to rounding."""
        low, high = self.interval
        return low * (1 - 1e-9) <= cost <= high * (1 + 1e-9)

    def feasible(self, cost: float) -> bool:
        """Whether the cost respects the upper limit, up to rounding."""
        return cost <= self.interval[1] * (1 + 1e-9)

    def __str__(self) -> str:
        return f"{self.score.metric.label.partition(' (')[0]} {'=' if self.sense == 'at' else '<='} " + show(
            self.limit, self.score.metric
        )
