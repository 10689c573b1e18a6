"""Which columns of a public table name an architecture, and how."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sartor.core import Architecture, SearchSpace, UserError
from sartor.core.restricted import Restricted
from sartor.spaces import tabled
from sartor.tables.table import Table

Index: TypeAlias = npt.NDArray[np.int64]
Keys: TypeAlias = dict[str, list[Any]]


@dataclass(frozen=True)
class Format:
    """How the rows of a table name their architectures.

    keys: columns that do; read: their values to architectures; by: a column that says what a row's numbers were
    measured on: each of its values gets columns of its own, VALUE_COLUMN.
    """

    keys: tuple[str, ...]
    read: Callable[[Any, Keys], list[Architecture]]
    by: str | None = None


def read(space: SearchSpace, file: Path) -> Table:
    """The table about a space. Raises UserError when the file is missing or damaged, or is about another space."""
    if space.name not in FORMATS or isinstance(space, Restricted):
        raise UserError(
            f"there are tables about {', '.join(FORMATS)}, not about space {space.name!r}; give one of those."
        )
    form, content = FORMATS[space.name], _content(file, FORMATS[space.name].keys)
    for name in (*form.keys, *([form.by] if form.by else [])):
        if name not in content.column_names:
            raise UserError(
                f"table {file} has no column {name!r}, by which tables of {space.name!r} are read; "
                f"it has {', '.join(content.column_names)}: give another file or another space."
            )
    if not len(content):
        raise UserError(f"table {file} has no rows; give a file with some.")
    keys = {name: content.column(name).to_pylist() for name in form.keys}
    try:
        archs = form.read(space, keys)
    except UserError as error:
        raise UserError(f"table {file}: {error}") from None
    columns = {name: content.column(name).to_numpy().astype(np.float64) for name in _numeric(content, form.keys)}
    if form.by:
        groups = np.array(content.column(form.by).to_pylist(), dtype=str)
        columns = {
            f"{group}_{name}": np.where(groups == group, values, np.nan)
            for group in sorted(set(groups))
            for name, values in columns.items()
        }
    return Table(space, archs, columns)


def _content(file: Path, keys: Sequence[str]) -> Any:
    import pyarrow as pa
    import pyarrow.csv as csv
    import pyarrow.parquet as pq

    if not file.is_file():
        raise UserError(f"table {file} does not exist; give the path of a Parquet or CSV file.")
    kind = "CSV" if ".csv" in file.suffixes else "Parquet"
    try:
        if kind == "Parquet":
            return pq.read_table(file)
        texts = csv.ConvertOptions(column_types={name: pa.string() for name in keys})
        content = csv.read_csv(file, convert_options=texts)
        content.column_names  # noqa: B018  names are decoded only here
        return content
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        raise UserError(f"table {file} is no {kind} file; give the path of a .parquet, .csv or .csv.gz file.") from None


def _numeric(content: Any, keys: Sequence[str]) -> list[str]:
    from pyarrow.types import is_floating, is_integer

    return [f.name for f in content.schema if f.name not in keys and (is_integer(f.type) or is_floating(f.type))]


# ---------------------------------------------------------------------- the five


def _cells(space: Any, keys: Keys) -> list[Architecture]:
    return [space.parse(str(text)) for text in keys["arch_str"]]


def _macro(space: SearchSpace, keys: Keys) -> list[Architecture]:
    digits = [" ".join(str(text)) for text in keys["arch"]]
    return _architectures(_choices("arch", digits, range(3), len(space.slots)))


def _fbnet(space: SearchSpace, keys: Keys) -> list[Architecture]:
    return _architectures(_choices("op_idx", keys["op_idx"], range(len(tabled.FBNET_OPERATORS)), len(space.slots)))


def _ofa(space: SearchSpace, keys: Keys) -> list[Architecture]:
    units, layers = tabled.OFA_UNITS, max(tabled.OFA_DEPTHS)
    kernel = _choices("ks", keys["ks"], tabled.OFA_KERNELS, units * layers)
    expansion = _choices("e", keys["e"], tabled.OFA_EXPANSIONS, units * layers)
    depth = _choices("d", keys["d"], tabled.OFA_DEPTHS, units)
    resolution = _choices("r", keys["r"], tabled.OFA_RESOLUTIONS, 1)
    blocks = np.stack([kernel, expansion], axis=2).reshape(-1, units, 2 * layers)
    whole = np.concatenate([depth[:, :, None], blocks], axis=2).reshape(len(depth), -1)
    index = np.concatenate([resolution, whole], axis=1)
    return _architectures(np.where(space.exists(index), index, 0))


_HAT_ENCODER: tuple[tuple[str, Sequence[int]], ...] = (
    ("encoder_ffn_embed_dim_avg", tabled.HAT_FFN),
    ("encoder_self_attention_heads_avg", tabled.HAT_HEADS),
)
_HAT_DECODER: tuple[tuple[str, Sequence[int]], ...] = (
    ("decoder_ffn_embed_dim_avg", tabled.HAT_FFN),
    ("decoder_self_attention_heads_avg", tabled.HAT_HEADS),
    ("decoder_ende_attention_heads_avg", tabled.HAT_HEADS),
    ("decoder_arbitrary_ende_attn_avg", tabled.HAT_ATTENDED),
)
_HAT_KEYS = ("encoder_embed_dim", "encoder_layer_num", "decoder_embed_dim", "decoder_layer_num")


def _hat(space: SearchSpace, keys: Keys) -> list[Architecture]:
    _choices("encoder_layer_num", keys["encoder_layer_num"], [tabled.HAT_LAYERS], 1)
    layers = _choices("decoder_layer_num", keys["decoder_layer_num"], range(1, tabled.HAT_LAYERS + 1), 1)[:, 0]
    index = np.zeros((len(layers), len(space.slots)), dtype=np.int64)
    index[:, 0] = _choices("encoder_embed_dim", keys["encoder_embed_dim"], tabled.HAT_WIDTHS, 1)[:, 0]
    for i, (name, settings) in enumerate(_HAT_ENCODER):
        index[:, 1 + i] = _averages(name, keys[name], np.full_like(layers, tabled.HAT_LAYERS - 1), settings)
    index[:, 3] = _choices("decoder_embed_dim", keys["decoder_embed_dim"], tabled.HAT_WIDTHS, 1)[:, 0]
    index[:, 4] = layers
    first = 5 + len(_HAT_DECODER) * layers
    for i, (name, settings) in enumerate(_HAT_DECODER):
        index[np.arange(len(layers)), first + i] = _averages(name, keys[name], layers, settings)
    return _architectures(index)


def _choices(column: str, values: Sequence[Any], allowed: Sequence[int], count: int) -> Index:
    """(rows, count) positions among the allowed numbers of texts such as `7 5 3`."""
    where = {str(value): i for i, value in enumerate(allowed)}
    found = []
    for row, value in enumerate(values):
        words = str(value).split()
        if len(words) != count or not where.keys() >= set(words):
            raise UserError(
                f"row {row} has {str(value)!r} in column {column!r}, which takes "
                f"{f'{count} numbers' if count > 1 else 'one'} of {', '.join(where)}; correct it or leave the row out."
            )
        found.append([where[word] for word in words])
    return np.array(found, dtype=np.int64)


def _averages(column: str, values: Sequence[Any], layers: Index, settings: Sequence[int]) -> Index:
    """(rows,) positions among the averages that so many layers (less one) can have."""
    found = []
    known = [{round(a, 2): i for i, a in enumerate(tabled.averages(n + 1, settings))} for n in range(tabled.HAT_LAYERS)]
    for row, (value, n) in enumerate(zip(values, layers.tolist())):
        position = None if value is None else known[n].get(round(float(value), 2))
        if position is None:
            raise UserError(
                f"row {row} has {value!r} in column {column!r}, which is no average of {n + 1} layers of "
                f"{', '.join(map(str, settings))}; correct it or leave the row out."
            )
        found.append(position)
    return np.array(found, dtype=np.int64)


def _architectures(index: Index) -> list[Architecture]:
    return list(map(tuple, index.tolist()))


FORMATS = {
    "nas-bench-201": Format(("arch_str",), _cells),
    "nas-bench-macro": Format(("arch",), _macro),
    "fbnet": Format(("op_idx",), _fbnet),
    "ofa-mobilenetv3": Format(("ks", "e", "d", "r"), _ofa),
    "hat": Format((*_HAT_KEYS, *(name for name, _ in (*_HAT_ENCODER, *_HAT_DECODER))), _hat, by="set"),
}
