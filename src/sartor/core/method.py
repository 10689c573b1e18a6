"""Who measures, who chooses, and what a search returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sartor.core.score import Budget, Score
from sartor.core.space import F, SearchSpace
from sartor.core.task import Task
from sartor.core.types import Architecture

if TYPE_CHECKING:
    from torch import nn

    from sartor.runs import Run


@dataclass(frozen=True)
class Measurement:
    """What a target said about one network and one metric.

    key: network key; samples: values in the metric's unit, one a round (latency: the fastest run of the round's
    visit); reference: those of the reference network in the same rounds; anchor: what the reference cost when this
    target's measurements began; conditions: everything about the moment that is not in the target's id; error: why
    there is no number, in which case samples are empty.
    """

    key: str
    arch: Architecture
    metric: str
    samples: tuple[float, ...]
    reference: tuple[float, ...] = ()
    conditions: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    anchor: float | None = None

    @property
    def value(self) -> float:
        """What is believed of the samples; NaN for a failure. `targets.timing` has the comparison behind it.

        The smallest, since interference only adds; beside a steady reference over the reference's smallest, times the
        anchor, which takes out the slow drift of the machine.
        """
        if not self.samples:
            return float("nan")
        drifted = 1.0 if self.anchor is None or not self.steady else min(self.reference) / self.anchor
        return min(self.samples) / drifted

    @property
    def steady(self) -> bool:
        """Whether other work left the reference alone."""
        return steady(self.reference)

    @property
    def median(self) -> float:
        """Median of the samples; NaN for a failure."""
        return median(self.samples) if self.samples else float("nan")

    @property
    def p90(self) -> float:
        """What nine of ten samples stay below; NaN for a failure."""
        return float(np.percentile(self.samples, 90)) if self.samples else float("nan")

    @property
    def spread(self) -> float:
        """(p90 - value) / value: how much the machine disturbed; NaN for a failure."""
        return (self.p90 - self.value) / self.value


def steady(reference: Sequence[float], before: float = float("inf")) -> bool:
    """Whether there is a reference, and its median is within 10 % of its minimum or of what it took `before`."""
    return bool(reference) and 0 < median(reference) <= 1.1 * min(*reference, before)


class Target(Protocol):
    """A device, a runtime and the conditions that define a number."""

    @property
    def id(self) -> str:
        """CPU or GPU model, runtime and version, threads, batch, precision; nothing that changes by the minute."""
        ...

    @property
    def batch(self) -> int:
        """Examples of an inference."""
        ...

    @property
    def folds(self) -> bool:
        """Whether batch norms are folded on the way to it, whatever it is given."""
        ...

    @property
    def metrics(self) -> frozenset[str]:
        """Names of the metrics it can measure here and now."""
        ...

    def measure(
        self,
        space: SearchSpace,
        archs: Sequence[Sequence[int]],
        metrics: Sequence[str],
        known: Mapping[str, float] = MappingProxyType({}),
    ) -> Iterator[Measurement]:
        """One measurement per architecture and metric, as they are finished; failures are measurements too.

        known: what reference networks took undisturbed, by key, in the unit of the metric.
        """
        ...


class Chooser(Protocol):
    """Ask for architectures, tell their values, repeat. Its state is data."""

    def ask(self) -> list[Architecture]: ...
    def tell(self, archs: Sequence[Architecture], values: F) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Landed:
    """An architecture with its predicted cost per budget metric, and how it was reached.

    status: `argmax` (the search's own answer), `optimal` (best by the objective, proven), `verified` (inside the
    budgets by the true score, not proven best), `within` (inside every limit and near none, of methods that do not have
    to spend what they may) or `none_found`.
    """

    architecture: Architecture
    predicted: Mapping[str, float]
    status: str


@dataclass(frozen=True)
class Found:
    """What a search returns: the winner, the plain argmax before landing, and whether the budgets hold."""

    space: SearchSpace
    method: str
    budgets: tuple[Budget, ...]
    winner: Landed
    argmax: Landed
    extras: Mapping[str, Any] = field(default_factory=dict)

    @property
    def architecture(self) -> Architecture:
        return self.winner.architecture

    @property
    def feasible(self) -> bool:
        """Predicted cost within every limit."""
        return all(b.feasible(self.winner.predicted[b.score.metric.name]) for b in self.budgets)

    def network(self) -> nn.Module:
        """The found network with fresh weights: a plain nn.Module."""
        return self.space.network(self.architecture)


class Method(Protocol):
    """One published system. Hyper-parameters are its fields; `paper()` has them as published."""

    def check(self, space: SearchSpace, budgets: Sequence[Budget]) -> None:
        """Raise UserError, in one line and before any work, when this space or these budgets do not fit."""
        ...

    def search(
        self, space: SearchSpace, objectives: Sequence[Score], budgets: Sequence[Budget], run: Run, task: Task | None
    ) -> Found:
        """Search. objectives: quality scores for methods that query; task: data for methods that train."""
        ...
