"""Folders of images, one folder a class; small sets as tensors, large ones through workers."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sartor.core.errors import UserError
from sartor.core.progress import progress
from sartor.data.images import ImageSet, check_labels, image_set, own_split
from sartor.data.lazy import Lazy
from sartor.data.small import existing
from sartor.data.tensors import statistics, stream
from sartor.data.vision import decode, stack, whole

_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".webp", ".tif", ".tiff", ".pgm"))
_MARGIN = 8 / 7  # shorter side against the centre crop: 256 for 224
_SAMPLE = 2048  # images that tell mean and deviation of a set that is not read whole
File = tuple[Path, int]


@dataclass(frozen=True)
class Files(Dataset[tuple[Tensor, int]]):
    """Files with labels as (3, R, R) uint8 images, decoded when asked for."""

    files: Sequence[File]
    resolution: int

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        path, label = self.files[i]
        array = decode(path, str(path), channels=3, resolution=self.resolution, margin=_MARGIN)
        return torch.from_numpy(np.array(array)).permute(2, 0, 1), label


def imagefolder(
    path: str,
    *,
    resolution: int = 224,
    classes: int | None = None,
    seed: int = 0,
    max_bytes: int = 2_000_000_000,
    workers: int = 2,
) -> ImageSet:
    """Images in `train/CLASS/*` with `test/CLASS/*` or `val/CLASS/*`, or in `CLASS/*` (a fixed random fifth is test).

    resolution: the shorter side is scaled to 8/7 of it and the centre cut out, RGB; classes: that many drawn at
    random by `seed` (default all); max_bytes: decoded sets up to this size are held as tensors, larger ones are
    decoded by `workers` processes on the way.
    Raises UserError for missing or empty folders, one class, too many classes asked for, or an unreadable image.
    """
    folder = existing(path, "imagefolder")
    whole("resolution", resolution)
    whole("workers", workers, 0)
    train, test = _scan(folder, classes, whole("seed", seed, 0))
    name = folder.name + (f" ({classes} classes, seed {seed})" if classes is not None else "")
    parts = (Files(train, resolution), Files(test, resolution))
    if (len(train) + len(test)) * 3 * resolution**2 <= max_bytes:
        tensors = [_load(part) for part in parts]
        return image_set(name, tensors[0], tensors[1], augmentation="crop_flip")
    labels = [torch.tensor([label for _, label in part.files]) for part in parts]
    count = check_labels(name, labels[0], labels[1], None)
    digest = hashlib.sha256(str(resolution).encode())
    for file, label in (*train, *test):
        digest.update(f"{file.relative_to(folder)} {file.stat().st_size} {label}\n".encode())
    chosen = torch.randperm(len(train), generator=stream("moments", name))[:_SAMPLE].tolist()
    moments = statistics(_load(Files([train[i] for i in chosen], resolution))[0])
    lazy = [Lazy(part, (3, resolution, resolution), workers) for part in parts]
    return ImageSet(name, count, lazy[0], lazy[1], "crop_flip", moments, digest.hexdigest()[:16])


def _load(part: Files) -> tuple[Tensor, Tensor]:
    def one(file: File) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        return decode(file[0], str(file[0]), channels=3, resolution=part.resolution, margin=_MARGIN)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        arrays = list(progress(pool.map(one, part.files), "reading images", len(part)))
    return stack(arrays, [str(file) for file, _ in part.files]), torch.tensor([label for _, label in part.files])


def _scan(folder: Path, classes: int | None, seed: int) -> tuple[list[File], list[File]]:
    """Training and test files with labels, over all or a random choice of the classes."""
    split = (folder / "train").is_dir()
    source = folder / "train" if split else folder
    names = _subfolders(source)
    if len(names) < 2:
        raise UserError(f"{source} holds {len(names)} class folders; classification needs at least two.")
    if classes is not None:
        if whole("classes", classes, 2) > len(names):
            raise UserError(f"{source} holds {len(names)} classes, {classes} were asked for; lower classes=...")
        order = torch.randperm(len(names), generator=stream("imagefolder classes", seed))
        names = sorted(names[i] for i in order[:classes].tolist())
    files = _files(source, names)
    if not split:
        train, test = own_split(len(files), 0.2, "imagefolder", len(files))
        return [files[i] for i in train.tolist()], [files[i] for i in test.tolist()]
    # ImageNet's own `test` has no class folders
    held = next((folder / n for n in ("test", "val", "valid") if _subfolders(folder / n)), None)
    if held is None:
        raise UserError(f"{folder} has train/ but no test/ or val/ with class folders; add one.")
    strange = sorted(set(_subfolders(held)) - set(_subfolders(source)))
    if strange:
        raise UserError(f"{held / strange[0]} is a class without training images in {source}; add or remove it.")
    return files, _files(held, [n for n in names if (held / n).is_dir()])


def _subfolders(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []


def _files(folder: Path, names: list[str]) -> list[File]:
    found: list[File] = []
    for label, name in enumerate(names):
        paths = sorted(p for p in (folder / name).rglob("*") if p.suffix.lower() in _SUFFIXES)
        if not paths:
            raise UserError(f"{folder / name} holds no images ({', '.join(sorted(_SUFFIXES))}); add some or remove it.")
        found += [(p, label) for p in paths]
    return found
