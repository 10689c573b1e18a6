"""Tasks: classification of images, tasks by reference, and a view of a task for searching that has no test split."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

from sartor.core.errors import UserError, unknown
from sartor.core.task import Batch, Split, Task
from sartor.core.units import METRICS
from sartor.data.coco import DetectionSet
from sartor.data.images import ImageSet
from sartor.data.lazy import image_set_from_loaders
from sartor.data.sources import load
from sartor.data.vision import whole
from sartor.training.detection import Detection
from sartor.training.translation import Translation

_SPLITS = ("train", "valid", "trainvalid", "test")
_VALID_SHARE = 0.2
_EVALUATION_BATCH = 512


def guesses(value: float, task: Task, split: Split) -> bool:
    """Whether an accuracy on `split` is what guessing among the classes may give: within three deviations of it."""
    classes = getattr(task, "classes", 0)
    if task.metric.name != "accuracy" or not classes:
        return False
    chance = 1 / classes
    return value / 100 < chance + 3 * math.sqrt(chance * (1 - chance) / task.length(split))


class Classification:
    """Image classification: cross-entropy, accuracy in percent.

    data: images with labels, already on its device; split_seed: which fifth of the training data is `valid`;
    label_smoothing: of the training loss, 0 to 1. Batches are ((images (B, C, H, W) float32,), labels (B,)).
    """

    metric = METRICS["accuracy"]

    def __init__(self, data: ImageSet, *, split_seed: int = 0, label_smoothing: float = 0.0) -> None:
        if len(data.train) < 4:
            raise UserError(f"{data.name} has {len(data.train)} training images; at least 4 are needed.")
        if not 0 <= label_smoothing < 1:
            raise UserError(f"label_smoothing={label_smoothing} must be at least 0 and below 1; change it.")
        self.data, self.split_seed, self.label_smoothing = data, split_seed, label_smoothing
        self.device, self.classes, self.shape = data.device, data.classes, data.shape
        train, valid = data.split(_VALID_SHARE, split_seed)
        self._index: dict[str, Tensor] = {"train": train, "valid": valid, "trainvalid": torch.cat((train, valid))}

    def describe(self) -> dict[str, Any]:
        """Name, sizes, split seed and content fingerprint of the data; no paths."""
        return {
            "task": "classification",
            "data": self.data.name,
            "content": self.data.content,
            "classes": self.classes,
            "shape": list(self.shape),
            "examples": {split: self.length(split) for split in ("train", "valid", "test")},
            "split_seed": self.split_seed,
            "label_smoothing": self.label_smoothing,
        }

    @property
    def normalisation(self) -> dict[str, Any] | None:
        """How pixels from 0 to 255 become inputs, (pixel - mean) / std by channel; None where data come ready."""
        if self.data.moments is None:
            return None
        mean, std = (moment.flatten().tolist() for moment in self.data.moments)
        return {"pixels": [0, 255], "mean": mean, "std": std}

    def smoothed(self, label_smoothing: float) -> Classification:
        """The same task with another label smoothing."""
        return Classification(self.data, split_seed=self.split_seed, label_smoothing=label_smoothing)

    def of_classes(self, labels: Sequence[int]) -> Classification:
        """The task of telling these labels apart, by networks that have an output for every label as before."""
        data = self.data.of_classes(labels)
        return Classification(data, split_seed=self.split_seed, label_smoothing=self.label_smoothing)

    def length(self, split: Split) -> int:
        """Number of images in a split."""
        index = self._of(split)
        return len(self.data.test) if index is None else len(index)

    def batches(
        self, split: Split, *, size: int, seed: int, epoch: int, limit: int | None = None, plain: bool = False
    ) -> Iterable[Batch]:
        """Batches of one epoch.

        `train` and `trainvalid`: shuffled, augmented, without a ragged last batch (unless it is the only one).
        `valid` and `test`: plain, complete, in one fixed random order whatever seed and epoch.
        limit: at most that many batches; plain: as of `valid`, of any split.
        """
        index = self._of(split)
        return self.data.batches(
            index,
            names=(seed, split, epoch),
            size=whole("size", size),
            limit=_checked(limit),
            shuffle=split in ("train", "trainvalid") and not plain,
        )

    def loss(self, net: Callable[..., Tensor], batch: Batch) -> Tensor:
        """Cross-entropy with label smoothing, mean over the batch."""
        inputs, labels = batch
        return functional.cross_entropy(net(*inputs).float(), labels, label_smoothing=self.label_smoothing)

    def evaluate(self, net: Callable[..., Tensor], split: Split, *, limit: int | None = None) -> Mapping[str, float]:
        """`accuracy` in percent and `loss` (cross-entropy without smoothing) over the unaugmented split.

        limit: at most that many batches of 512. Computes no gradients; sets no mode.
        """
        batches = self.data.batches(
            self._of(split), names=(), size=_EVALUATION_BATCH, limit=_checked(limit), shuffle=False
        )
        total, count = torch.zeros(2, dtype=torch.float64), 0
        with torch.no_grad():
            for inputs, labels in batches:
                logits = net(*inputs).float()
                right = (logits.argmax(1) == labels).sum()
                total += torch.stack((right, functional.cross_entropy(logits, labels, reduction="sum"))).double().cpu()
                count += len(labels)
        right_share, loss = (total / count).tolist()
        return {"accuracy": 100 * right_share, "loss": loss}

    def _of(self, split: Split) -> Tensor | None:
        if split not in _SPLITS:
            raise unknown("split", split, _SPLITS)
        return self._index.get(split)


def _checked(limit: int | None) -> int | None:
    return None if limit is None else whole("limit", limit)


class SearchView:
    """A task as a method may see it: the same, but `test` raises UserError and the data set stays out of reach."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self.metric, self.device = task.metric, task.device
        for name in ("classes", "shape", "vocabularies", "normalisation"):
            if hasattr(task, name):
                setattr(self, name, getattr(task, name))

    def describe(self) -> dict[str, Any]:
        return self._task.describe()

    def length(self, split: Split) -> int:
        return self._task.length(_allowed(split))

    def batches(
        self, split: Split, *, size: int, seed: int, epoch: int, limit: int | None = None, plain: bool = False
    ) -> Iterable[Batch]:
        return self._task.batches(_allowed(split), size=size, seed=seed, epoch=epoch, limit=limit, plain=plain)

    def loss(self, net: Callable[..., Tensor], batch: Batch) -> Tensor:
        return self._task.loss(net, batch)

    def evaluate(self, net: Callable[..., Tensor], split: Split, *, limit: int | None = None) -> Mapping[str, float]:
        return self._task.evaluate(net, _allowed(split), limit=limit)


def _allowed(split: Split) -> Split:
    if split == "test":
        raise UserError("a search may not read the test split; use train, valid or trainvalid.")
    return split


def for_search(task: Task) -> SearchView:
    """The view of a task that methods get. Raises UserError whenever the test split is asked for."""
    return task if isinstance(task, SearchView) else SearchView(task)


def smoothed(task: Task, label_smoothing: float) -> Task:
    """The same task, or view of one, with that label smoothing. Raises UserError for a task that has none."""
    if isinstance(task, SearchView):
        return SearchView(smoothed(task._task, label_smoothing))
    if not hasattr(task, "smoothed"):
        raise UserError(f"this task has no label smoothing; leave label_smoothing={label_smoothing:g} out.")
    other: Task = task.smoothed(label_smoothing)
    return other


def of_classes(task: Task, labels: Sequence[int]) -> Task:
    """The same task, or view of one, about these labels alone. Raises UserError for a task that has none."""
    if isinstance(task, SearchView):
        return SearchView(of_classes(task._task, labels))
    if not hasattr(task, "of_classes"):
        raise UserError("this task has no classes to choose from; leave the number of classes out.")
    other: Task = task.of_classes(labels)
    return other


def get(
    reference: str, device: torch.device | str = "cpu", *, split_seed: int = 0, label_smoothing: float | None = None
) -> Classification | Detection | Translation:
    """The task of a data reference such as `digits`, `parquet:PATH?resolution=64`, `coco:PATH` or `multi30k:PATH`.

    device: where the data lies and networks are trained; split_seed: of images; label_smoothing: default 0, 0.1 for
    translation. Raises UserError for bad references, data or devices.
    """
    data = load(reference, device)
    smoothing = {} if label_smoothing is None else {"label_smoothing": label_smoothing}
    if isinstance(data, ImageSet):
        return Classification(data, split_seed=split_seed, **smoothing)
    if isinstance(data, DetectionSet):
        if label_smoothing:
            raise UserError("finding things has no label smoothing; leave label_smoothing out.")
        return Detection(data, split_seed=split_seed)
    if split_seed:
        raise UserError(f"{data.name} has its own validation pairs; leave out split_seed={split_seed}.")
    return Translation(data, **smoothing)


def from_loaders(
    train_loader: DataLoader[Any],
    test_loader: DataLoader[Any],
    *,
    classes: int,
    name: str = "loaders",
    device: torch.device | str = "cpu",
    split_seed: int = 0,
    label_smoothing: float = 0.0,
) -> Classification:
    """The classification task of two DataLoaders; `data.lazy.image_set_from_loaders` says what it takes."""
    data = image_set_from_loaders(train_loader, test_loader, classes=classes, name=name).to(device)
    return Classification(data, split_seed=split_seed, label_smoothing=label_smoothing)
