"""Well-known small data sets: digits, Fashion-MNIST, CIFAR."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sartor.core.errors import UserError
from sartor.data.images import ImageSet, image_set, own_split
from sartor.data.vision import import_torchvision


def digits(*, resolution: int | None = None, channels: int = 1) -> ImageSet:
    """scikit-learn's 1,797 grey 8x8 digits; a fixed random fifth is the test part.

    channels: 1, or 3 for networks that take RGB. Raises UserError for others.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = _wide(torch.from_numpy((bunch.images * (255 / 16)).round().astype(np.uint8)), channels)
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    train, test = own_split(len(images), 0.2, "digits")
    parts = (images[train], labels[train]), (images[test], labels[test])
    return image_set("digits", *parts, augmentation="shift", resolution=resolution)


def _wide(grey: Tensor, channels: int) -> Tensor:
    """(n, channels, height, width) of (n, height, width)."""
    if channels not in (1, 3):
        raise UserError(f"option channels={channels} must be 1 (grey) or 3 (RGB); change it.")
    return grey.unsqueeze(1).repeat(1, channels, 1, 1)


def fashion_mnist(path: str, *, resolution: int | None = None, channels: int = 1) -> ImageSet:
    """Fashion-MNIST (or any set in its format) from a folder with the four idx .gz files. channels: as of `digits`."""
    folder = existing(path, "fashion-mnist")
    parts = []
    for prefix in ("train", "t10k"):
        images = _idx(folder / f"{prefix}-images-idx3-ubyte.gz", 3)
        labels = _idx(folder / f"{prefix}-labels-idx1-ubyte.gz", 1)
        if len(images) != len(labels):
            raise UserError(f"{folder}: {len(images)} {prefix} images but {len(labels)} labels; restore the files.")
        parts.append((_wide(images, channels), labels.long()))
    return image_set("Fashion-MNIST", parts[0], parts[1], augmentation="shift_flip", resolution=resolution)


def _idx(file: Path, dimensions: int) -> Tensor:
    """An idx file of unsigned bytes: magic (0, 0, 8, dimensions), big-endian sizes, data."""
    if not file.is_file():
        raise UserError(f"there is no file {file}; fashion-mnist needs the four idx .gz files in one folder.")
    try:
        with gzip.open(file) as stream:
            data = stream.read()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{file} is not a readable gzip file ({error}); restore it.") from None
    start = 4 + 4 * dimensions
    sizes = np.frombuffer(data[4:start], ">u4").tolist() if len(data) >= start else []
    if data[:4] != bytes((0, 0, 8, dimensions)) or len(data) != start + math.prod(sizes):
        raise UserError(f"{file} is not an idx file of {dimensions}-dimensional bytes, or is cut short; restore it.")
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=start).reshape(sizes).copy())


def cifar10(path: str, *, resolution: int | None = None) -> ImageSet:
    """CIFAR-10 from a folder with torchvision's `cifar-10-batches-py`."""
    return _cifar("CIFAR10", "CIFAR-10", path, resolution)


def cifar100(path: str, *, resolution: int | None = None) -> ImageSet:
    """CIFAR-100 from a folder with torchvision's `cifar-100-python`."""
    return _cifar("CIFAR100", "CIFAR-100", path, resolution)


def _cifar(kind: str, name: str, path: str, resolution: int | None) -> ImageSet:
    import_torchvision()
    from torchvision import datasets

    folder, parts = existing(path, kind.lower()), []
    for train in (True, False):
        try:
            data = getattr(datasets, kind)(str(folder), train=train, download=False)
        except RuntimeError:
            raise UserError(
                f"{folder} holds no intact {name} as torchvision stores it ({getattr(datasets, kind).base_folder}); "
                "download it there, or give parquet:PATH or imagefolder:PATH."
            ) from None
        parts.append((torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(data.targets)))
    return image_set(name, parts[0], parts[1], augmentation="shift_flip", resolution=resolution)


def existing(path: str, name: str) -> Path:
    """The folder at `path`. Raises UserError when it is missing or not a folder."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UserError(f"{name}: there is no folder {folder}; check the path.")
    return folder
