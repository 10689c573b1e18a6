"""Benchmark tables: files in which the cost and the quality of networks of a space are known."""

from __future__ import annotations

from pathlib import Path

from sartor.core import SearchSpace
from sartor.tables.table import Table, TableScore

__all__ = ["Table", "TableScore", "load"]


def load(space: SearchSpace | str, file: Path | str) -> Table:
    """The table in a Parquet or CSV file about a space, which is given as itself or by name.

    Every column of numbers becomes a score; `files.FORMATS` has the columns that name the architecture. Raises
    UserError when the file is missing or damaged, or is no table of that space.
    """
    from sartor import spaces
    from sartor.tables.files import read

    return read(spaces.get(space) if isinstance(space, str) else space, Path(file))
