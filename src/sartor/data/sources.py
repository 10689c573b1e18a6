"""Data sets by reference: `digits`, `parquet:PATH?resolution=64`, `multi30k:PATH`, or just a path."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import torch

from sartor.core.errors import UserError, unknown
from sartor.core.registry import Registry, parse_reference
from sartor.data.coco import DetectionSet
from sartor.data.images import ImageSet
from sartor.data.text import TextSet

DataSet: TypeAlias = ImageSet | TextSet | DetectionSet
DATA: Registry[DataSet] = Registry(
    "data set",
    {
        "digits": "sartor.data.small:digits",
        "fashion-mnist": "sartor.data.small:fashion_mnist",
        "cifar10": "sartor.data.small:cifar10",
        "cifar100": "sartor.data.small:cifar100",
        "coco": "sartor.data.coco:coco",
        "imagefolder": "sartor.data.folder:imagefolder",
        "multi30k": "sartor.data.text:multi30k",
        "parquet": "sartor.data.parquet:parquet",
    },
)
_TEXT = frozenset(("multi30k",))


def load(reference: str, device: torch.device | str = "cpu") -> DataSet:
    """The data set of a reference `NAME[:PATH][?key=value&...]` or a plain path, on `device`.

    The option `images=N` of every data set of images keeps N random training images.
    A plain path is a parquet file or a folder: with parquet tables, with COCO's annotations, with idx files, with text,
    or of images.
    Raises UserError for an unknown name or option, a missing path, or bad contents.
    """
    name, path, options = parse_reference(reference)
    if name not in DATA:
        plain = reference.partition("?")[0]
        if not Path(plain).expanduser().exists():
            if "/" in name or (path is None and "." in name):
                raise UserError(f"there is no data at {plain}; check the path, or give {_usage()}.")
            raise unknown("data set", name, DATA)
        name, path = _recognise(Path(plain).expanduser()), plain
    parameters = set(inspect.signature(DATA[name]).parameters)
    wants_path = "path" in parameters
    allowed = (parameters | ({"images"} if name not in _TEXT else set())) - {"path"}
    if wants_path and path is None:
        raise UserError(f"data set {name!r} needs a path; write {name}:PATH.")
    if path is not None and not wants_path:
        raise UserError(f"data set {name!r} takes no path, given is {path!r}; write {name}.")
    for key in options:
        if key not in allowed:
            raise unknown(f"option of data set {name!r}:", key, allowed)
    images = options.pop("images", None)
    found = DATA[name](*([path] if wants_path else []), **options)
    if isinstance(found, ImageSet | DetectionSet) and images is not None:
        if isinstance(images, bool) or not isinstance(images, int) or images < 10:
            raise UserError(f"images={images} is not possible; give a whole number from 10 to {len(found.train)}.")
        found = replace(found, images=images)
    return found.to(device)


def _recognise(path: Path) -> str:
    if path.is_file() or any(path.glob("*.parquet")):
        return "parquet"
    if any(path.glob("annotations/instances_*.json")):
        return "coco"
    if any(path.glob("train.*.gz")):
        return "multi30k"
    return "fashion-mnist" if any(path.glob("*idx3-ubyte.gz")) else "imagefolder"


def _usage() -> str:
    return ", ".join(name if name == "digits" else f"{name}:PATH" for name in DATA)
