"""Image tables: a column of encoded images and a column of labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sartor.core.errors import UserError
from sartor.core.progress import progress
from sartor.data.images import ImageSet, image_set
from sartor.data.vision import decode, stack, whole

_COLUMNS = ("jpeg", "png", "image")
_NAMES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}


def parquet(
    path: str,
    *,
    test: str | None = None,
    resolution: int | None = None,
    channels: int | None = None,
    classes: int | None = None,
    name: str | None = None,
) -> ImageSet:
    """Images from parquet files with columns `jpeg`, `png` or `image` (bytes) and `label` (0, 1, ...).

    path: a folder or prefix with `*_train.parquet` and `*_test.parquet`, or the training file; test: the test file,
    where the name does not tell; resolution: edge in pixels (default: as stored, then all of one size);
    channels: 1 or 3 converts (default: as stored); classes: default one more than the largest label;
    name: shown to people (default: from the file name, with "(JPEG)" for a lossy copy).
    Raises UserError for missing files or columns, missing labels, unreadable images, or what `image_set` refuses.
    """
    if channels not in (None, 1, 3):
        raise UserError(f"option channels={channels} must be 1 (grey) or 3 (RGB); change it.")
    if resolution is not None:
        whole("resolution", resolution)
    files = _files(Path(path).expanduser(), test)
    parts = [_read(file, channels, resolution) for file in files]
    stem = files[0].stem.removesuffix("_train")
    shown = name or _NAMES.get(stem, stem) + (" (JPEG)" if parts[0][2] == "jpeg" else "")
    return image_set(shown, parts[0][:2], parts[1][:2], augmentation="shift_flip", classes=classes)


def _files(path: Path, test: str | None) -> tuple[Path, Path]:
    if path.is_dir():
        found = sorted(path.glob("*_train.parquet"))
        if len(found) != 1:
            names = ", ".join(f.name for f in found) or "none"
            raise UserError(f"{path} must hold one *_train.parquet, it holds {names}; give parquet:FILE.")
        train = found[0]
    else:
        train = path if path.is_file() else path.with_name(f"{path.name}_train.parquet")
    if test is not None:
        other = train.parent / Path(test).expanduser()
    elif train.name.endswith("_train.parquet"):
        other = train.with_name(train.name.removesuffix("_train.parquet") + "_test.parquet")
    else:
        raise UserError(f"parquet: which file is the test part of {train}? Add ?test=FILE.")
    for file in (train, other):
        if not file.is_file():
            raise UserError(f"parquet: there is no file {file}; check the path, or add ?test=FILE.")
    return train, other


def _read(file: Path, channels: int | None, resolution: int | None) -> tuple[Tensor, Tensor, str]:
    """Images, labels and the name of the image column."""
    import pyarrow as pa
    from pyarrow import parquet as pq

    try:
        names = pq.read_schema(file).names
        column = next((c for c in _COLUMNS if c in names), None)
        if column is None or "label" not in names:
            raise UserError(
                f"{file} has columns {', '.join(names)}; it needs `label` and one of {', '.join(_COLUMNS)}."
            )
        table = pq.read_table(file, columns=["label", column])
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file} is not a readable parquet file ({str(error)[:100]}); restore it.") from None
    if table.num_rows == 0:
        raise UserError(f"{file} has no rows; check the path.")
    labels = _labels(file, table["label"])
    where = [f"{file}: {column} of row {i}" for i in range(table.num_rows)]
    arrays = []
    for data, name in progress(zip(table[column].to_pylist(), where), f"reading {file.name}", len(where)):
        data = data.get("bytes") if isinstance(data, dict) else data  # a common layout: {bytes, path}
        if not isinstance(data, bytes):
            raise UserError(f"{name} holds no bytes; the column must hold encoded images.")
        arrays.append(decode(data, name, channels=channels, resolution=resolution))
    return stack(arrays, where), labels, column


def _labels(file: Path, column: Any) -> Tensor:
    import pandas as pd

    values = column.to_pandas()
    if not pd.api.types.is_numeric_dtype(values):
        raise UserError(f"{file}: column `label` holds {values.dtype}, not numbers; write classes as 0, 1, 2, ...")
    wrong = values.isna() | (values % 1 != 0)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise UserError(f"{file}: label {values[row]} of row {row} is not a whole number; correct or remove the row.")
    return torch.from_numpy(values.to_numpy().astype(np.int64))
