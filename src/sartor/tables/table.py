"""A table in memory, and its columns as scores."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sartor.core import METRICS, Architecture, F, Metric, SearchSpace, SoftScore, UserError
from sartor.core.errors import unknown

if TYPE_CHECKING:
    from torch import Tensor

# how public tables name what they hold, the first that is found counts; with the factor to the metric's own unit
_WORDS: tuple[tuple[str, str, float], ...] = (
    ("acc|top1", "accuracy", 1.0),
    ("latency|_ms$", "latency_ms", 1.0),
    ("energy|_mj$", "energy_mj", 1.0),
    ("mmacs|mflops", "macs", 1e6),
    ("macs|flops", "macs", 1.0),
    ("params", "params", 1.0),
)


class Table:
    """Columns of numbers about architectures of a space; read as scores.

    archs: n architectures; columns: (n,) each, NaN where the source has none. Rows about one architecture become one
    with the mean of what they hold; `repeated` counts those that went into another.
    """

    def __init__(self, space: SearchSpace, archs: Iterable[Architecture], columns: Mapping[str, F]) -> None:
        self.space, self.columns = space, dict(columns)
        self.row: dict[Architecture, int] = {}
        rows = [self.row.setdefault(arch, len(self.row)) for arch in archs]
        self.repeated = len(rows) - len(self.row)
        if self.repeated:
            self.columns = {name: _means(values, rows, len(self.row)) for name, values in self.columns.items()}

    def score(self, column: str) -> TableScore:
        """What a column says of an architecture, in the unit of the metric that the column's name tells.

        Raises UserError for an unknown column and for one whose name does not tell the metric.
        """
        if column not in self.columns:
            raise unknown("column", column, self.columns)
        return TableScore(self, column)


class TableScore(SoftScore):
    """A column as a score; NaN where the table has no answer.

    read: the architectures asked about so far, what an honest comparison of methods counts.
    """

    def __init__(self, table: Table, column: str) -> None:
        self.space, self.table = table.space, table
        self.metric, factor = metric_of(column)
        self.values = table.columns[column] * factor
        self.read: set[Architecture] = set()
        self._dense: Tensor | None = None

    def __call__(self, archs: Sequence[Sequence[int]]) -> F:
        known = self.space.canonicals(archs)
        self.read.update(known)
        rows = [self.table.row.get(arch, -1) for arch in known]
        return np.array([self.values[i] if i >= 0 else np.nan for i in rows], dtype=np.float64)

    def soft(self, gates: tuple[Tensor, ...]) -> Tensor:
        """Expected value over independent slots, exactly: the whole table contracted with the gates.

        Missing entries count as the mean of the others. Raises UserError where the table has not every network.
        """
        import torch

        if self._dense is None:
            shape = tuple(len(slot) for slot in self.space.slots)
            if len(self.table.row) != math.prod(shape):
                raise UserError(
                    f"the table has {len(self.table.row)} of the {self.space.size} networks; "
                    "fit a predictor on its rows."
                )
            dense = np.empty(shape)
            dense[tuple(np.array(list(self.table.row)).T)] = self.values
            dense[np.isnan(dense)] = np.nanmean(self.values)
            self._dense = torch.from_numpy(dense)
        value = self._dense.to(gates[0])
        for gate in gates:
            value = torch.tensordot(gate, value, dims=1)
        return value


def metric_of(column: str) -> tuple[Metric, float]:
    """The metric that a column's name tells, and the factor from its numbers to the metric's unit.

    Raises UserError for a name that tells none.
    """
    for name, metric in METRICS.items():
        if column == name or column.endswith(f"_{name}"):
            return metric, 1.0
    for words, name, factor in _WORDS:
        if re.search(words, column, re.IGNORECASE):
            return METRICS[name], factor
    raise UserError(
        f"column {column!r} does not say what it measures; let its name end with one of {', '.join(METRICS)}."
    )


def _means(values: F, rows: Sequence[int], count: int) -> F:
    whole = np.isfinite(values)
    index = np.array(rows)[whole]
    known = np.bincount(index, minlength=count)
    sums = np.bincount(index, values[whole], count)
    return np.where(known > 0, sums / np.maximum(known, 1), np.nan)
