"""Images with boxes, in COCO's format: `annotations/instances_train*.json`, `..._val*.json`, and folders of images.

T.-Y. Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sartor.core.errors import UserError
from sartor.core.progress import Progress
from sartor.data.tensors import Tensors, on_device, statistics
from sartor.data.vision import decode, fits, resize, whole
from sartor.runs import read_json

_CPU = torch.device("cpu")
_COLUMNS = 6  # label, corners, crowd
_IMAGES, _LEAST = 4, 1.0  # in a file; pixels of a box's sides, after scaling


@dataclass(frozen=True)
class DetectionSet:
    """Square images with boxes. `labels` of train and test are (images, most boxes, 6): which of `things` from 1 on (0:
    no box), corners x1, y1, x2, y2 in pixels, and 1 for a crowd, which is neither found nor missed.

    moments: mean and deviation per channel of the training images in 0-255; content: fingerprint; images: how many
    training images are used (None: all).
    """

    name: str
    things: tuple[str, ...]
    train: Tensors
    test: Tensors
    moments: tuple[Tensor, Tensor]
    content: str
    device: torch.device = _CPU
    images: int | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return self.train.shape

    def to(self, device: torch.device | str) -> DetectionSet:
        """The same data set with its tensors on `device`. Raises UserError when there is no such device."""
        there = on_device(device)
        return replace(self, train=self.train.to(there), test=self.test.to(there), device=there)


def coco(path: str, resolution: int = 320, channels: int = 3) -> DetectionSet:
    """A folder in COCO's format, all of it in memory; images are scaled to squares of that edge, and boxes with them.

    The images of `instances_NAME.json` are in the folder NAME, or in `images`. Boxes of less than a pixel inside their
    image are left out. Raises UserError for missing or several files, damaged annotations or images, what does not fit
    in memory, and where a category of the test is not in the training.
    """
    root, edge = Path(path).expanduser(), whole("resolution", resolution, 8)
    if channels not in (1, 3):
        raise UserError(f"option channels={channels} must be 1 or 3; change it.")
    files = [_annotations(root, word) for word in ("train", "val")]
    told = [_read(file) for file in files]
    try:
        names = {int(one["id"]): str(one["name"]) for one in told[0]["categories"]}
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(files[0], error) from None
    if not names:
        raise UserError(f"{files[0]} names no categories; give annotations in COCO's format.")
    order = {key: i + 1 for i, key in enumerate(sorted(names))}
    train, test = (_part(root, file, data, order, edge, channels) for file, data in zip(files, told))
    digest = hashlib.sha256()
    for part in (train, test):
        digest.update(part.images.numpy().data)
        digest.update(part.labels.numpy().data)
    things = tuple(names[key] for key in sorted(names))
    return DetectionSet(root.name, things, train, test, statistics(train.images), digest.hexdigest()[:16])


def _annotations(root: Path, word: str) -> Path:
    found = sorted((root / "annotations").glob(f"instances_{word}*.json"))
    if not found:
        raise UserError(f"there is no {root}/annotations/instances_{word}*.json; give a folder in COCO's format.")
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise UserError(f"{root}/annotations has {names}; leave one of them there.")
    return found[0]


def _damaged(file: Path, error: Exception) -> UserError:
    return UserError(f"{file} is damaged ({error!r}); give annotations in COCO's format.")


def _read(file: Path) -> dict[str, Any]:
    data = read_json(file)
    for key in ("images", "annotations", "categories"):
        if not isinstance(data, dict) or not isinstance(data.get(key), list):
            raise UserError(f"{file} has no list of {key}; give annotations in COCO's format.")
    return dict(data)


def _part(root: Path, file: Path, data: dict[str, Any], order: dict[int, int], edge: int, channels: int) -> Tensors:
    folder = root / file.stem.removeprefix("instances_")
    folder = folder if folder.is_dir() else root / "images"
    boxes: dict[int, list[Sequence[float]]] = defaultdict(list)
    try:
        for one in data["annotations"]:
            x, y, width, height = map(float, one["bbox"])
            kind, crowd = int(one["category_id"]), float(bool(one.get("iscrowd")))
            if kind not in order:
                raise UserError(f"{file} has a box of category {kind}, which the training data lack; add it there.")
            boxes[one["image_id"]].append((order[kind], x, y, x + width, y + height, crowd))
        rows = [(one["id"], folder / str(one["file_name"])) for one in data["images"]]
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(file, error) from None
    if len(rows) < _IMAGES:
        raise UserError(f"{file} names {len(rows)} images; give {_IMAGES} or more, in COCO's format.")
    if strange := boxes.keys() - {key for key, _ in rows}:
        raise UserError(f"{file} has boxes of image {min(strange, key=str)!r}, which it does not name; mend it.")
    fits(len(rows), channels, edge)
    labels = torch.zeros(len(rows), max(1, *(len(boxes[key]) for key, _ in rows)), _COLUMNS)
    images = torch.empty(len(rows), channels, edge, edge, dtype=torch.uint8)
    bar = Progress(f"read {folder.name}", len(rows))
    for i, (key, place) in enumerate(rows):
        if not place.is_file():
            raise UserError(f"there is no image {place}, which {file.name} names; check the folder.")
        image = torch.from_numpy(np.array(decode(place, str(place), channels=channels))).permute(2, 0, 1)
        images[i] = resize(image[None], edge)[0]
        if mine := boxes[key]:
            height, width = image.shape[1:]
            scale = torch.tensor([1.0, edge / width, edge / height, edge / width, edge / height, 1.0])
            scaled = torch.tensor(mine) * scale
            scaled[:, 1:5] = scaled[:, 1:5].clamp(0, edge)
            seen = scaled[(scaled[:, 3:5] - scaled[:, 1:3]).amin(1) >= _LEAST]
            labels[i, : len(seen)] = seen
        bar.advance()
    bar.close()
    return Tensors(images, labels)
