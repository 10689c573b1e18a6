"""Benchmark tables: files in which the cost and the quality of every network of a space are known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sartor.core import METRICS, Architecture, F, Metric, SearchSpace, SoftScore, UserError
from sartor.core.errors import unknown

if TYPE_CHECKING:
    from torch import Tensor


class Table:
    """Columns of numbers about architectures of a space; read as scores.

    columns: (n,) each, NaN where the source has none; archs: the n architectures.
    """

    def __init__(self, space: SearchSpace, archs: Iterable[Architecture], columns: Mapping[str, F]) -> None:
        self.space, self.columns = space, dict(columns)
        self.row = {arch: i for i, arch in enumerate(archs)}

    def score(self, column: str) -> TableScore:
        """What a column says of an architecture; its name ends with the metric's, or contains `acc`.

        Raises UserError for an unknown column and for one whose name does not tell the metric.
        """
        if column not in self.columns:
            raise unknown("column", column, self.columns)
        found = [metric for name, metric in METRICS.items() if column == name or column.endswith(f"_{name}")]
        if not found and "acc" not in column:
            raise UserError(
                f"column {column!r} does not say what it measures; let its name end with one of {', '.join(METRICS)}."
            )
        return TableScore(self, column, found[0] if found else METRICS["accuracy"])


class TableScore(SoftScore):
    """A column as a score; NaN where the table has no answer.

    read: the architectures asked about so far, what an honest comparison of methods counts.
    """

    def __init__(self, table: Table, column: str, metric: Metric) -> None:
        self.space, self.metric, self.table = table.space, metric, table
        self.values = table.columns[column]
        self.read: set[Architecture] = set()
        self._dense: Tensor | None = None

    def __call__(self, archs: Sequence[Sequence[int]]) -> F:
        known = [self.space.canonical(arch) for arch in archs]
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
            if len(self.table.row) != np.prod(shape):
                raise UserError(
                    f"the table has {len(self.table.row)} of the {np.prod(shape):.0f} networks; "
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


def nas_bench_201(file: Path | str, space: SearchSpace | None = None) -> Table:
    """NAS-Bench-201 from a Parquet file with a column `arch_str` and columns of numbers.

    space: how the same 15,625 cells are built, default as published. Raises UserError when the file is missing or
    is no such table.
    """
    from sartor.spaces.nasbench201 import NASBench201

    built = NASBench201() if space is None else space
    if not isinstance(built, NASBench201):
        raise UserError(f"table {file} is about nas-bench-201, not about space {built.name!r}; give that space.")
    return _parquet(Path(file), built, "arch_str", built.parse)


def _parquet(file: Path, space: SearchSpace, key: str, parse: Callable[[str], Architecture]) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not file.exists():
        raise UserError(f"table {file} does not exist; give the path of a Parquet file.")
    try:
        content: Any = pq.read_table(file)
    except pa.ArrowException:
        raise UserError(f"table {file} is no Parquet file; give the path of one.") from None
    if key not in content.column_names:
        raise UserError(f"table {file} has no column {key!r}; it has {', '.join(content.column_names)}.")
    numeric = [f.name for f in content.schema if pa.types.is_integer(f.type) or pa.types.is_floating(f.type)]
    columns = {n: content.column(n).to_numpy().astype(np.float64) for n in numeric}
    return Table(space, map(parse, content.column(key).to_pylist()), columns)
