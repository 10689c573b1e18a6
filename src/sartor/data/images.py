"""An image data set: checked, measured and fingerprinted once, then batches by role."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sartor.core.errors import UserError
from sartor.core.memory import image_layout
from sartor.data.tensors import (
    Augmentation,
    Batches,
    Examples,
    Tensors,
    epoch,
    normaliser,
    on_device,
    statistics,
    stream,
)
from sartor.data.vision import resize, whole

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class ImageSet:
    """Training and test examples of one classification data set.

    name: for people; classes: number of labels; augmentation: what random changes keep the label;
    moments: mean and deviation per channel of the training images in 0-255, or None for images that come ready;
    content: fingerprint of images and labels; device: where batches go; images: how many training images `split`
    keeps (None: all).
    """

    name: str
    classes: int
    train: Examples
    test: Examples
    augmentation: Augmentation
    moments: tuple[Tensor, Tensor] | None
    content: str
    device: torch.device = _CPU
    images: int | None = None

    def to(self, device: torch.device | str) -> ImageSet:
        """The same data set with its tensors on `device`. Raises UserError when there is no such device."""
        there = on_device(device)
        try:
            return replace(self, train=self.train.to(there), test=self.test.to(there), device=there)
        except torch.OutOfMemoryError:
            raise UserError(f"{self.name} does not fit on {device}; lower resolution= or use device cpu.") from None

    def of_classes(self, labels: Sequence[int]) -> ImageSet:
        """The images of these labels, which keep their numbers: `classes` is as before.

        Raises UserError for images that are not held as tensors, and for a part that has none of the labels.
        """
        parts = []
        for part in (self.train, self.test):
            if not isinstance(part, Tensors):
                raise UserError(
                    f"{self.name} is read as it is needed; classes can be chosen of data that fit in memory."
                )
            mine = torch.isin(part.labels, torch.tensor(list(labels), device=part.labels.device))
            parts.append(Tensors(part.images[mine], part.labels[mine]))
        train, test = parts
        if not len(train) or not len(test):
            raise UserError(
                f"{self.name} has no images of the labels {sorted(labels)}; they are 0 to {self.classes - 1}."
            )
        kept = None if self.images is None else round(self.images * len(train) / len(self.train))
        said = ",".join(map(str, sorted(labels)))
        return replace(
            self,
            name=f"{self.name}, labels {said}",
            train=train,
            test=test,
            content=f"{self.content}-{said}",
            images=kept,
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return self.train.shape

    def split(self, share: float, seed: int) -> tuple[Tensor, Tensor]:
        """Two disjoint index tensors over the training examples, the second with `share` of them, in random order."""
        rest, part = own_split(len(self.train), share, self.name, seed)
        if self.images is None or self.images >= len(self.train):
            return rest, part
        kept = round(self.images * share)
        return rest[: self.images - kept], part[:kept]

    def batches(
        self,
        index: Tensor | None,
        *,
        names: tuple[str | int, ...],
        size: int,
        limit: int | None,
        shuffle: bool,
    ) -> Batches:
        """Batches over training examples `index`, or over the test examples where it is None; see `tensors.epoch`."""
        examples = self.test if index is None else self.train
        if index is None:  # a fixed random order: files sorted by class would make a limited test meaningless
            index = torch.randperm(len(examples), generator=stream("test order", len(examples)))
        prepare = _as_is if self.moments is None else normaliser(*self.moments, self.device)
        return epoch(
            examples,
            index,
            names=names,
            size=size,
            limit=limit,
            shuffle=shuffle,
            augmentation=self.augmentation,
            prepare=prepare,
            device=self.device,
        )


def _as_is(images: Tensor) -> Tensor:
    return images.to(torch.float32, memory_format=image_layout(images.device))


def image_set(
    name: str,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    *,
    augmentation: Augmentation,
    resolution: int | None = None,
    classes: int | None = None,
) -> ImageSet:
    """Build a data set from (images (N, C, H, W) uint8, labels (N,)) of both parts.

    resolution: resize to that edge, bilinear; classes: number of labels, default one more than the largest.
    Raises UserError for an empty part, fewer than two classes, labels out of range, or shapes that differ.
    """
    count = check_labels(name, train[1], test[1], classes)
    if resolution is not None:
        edge = whole("resolution", resolution)
        train, test = (resize(train[0], edge), train[1]), (resize(test[0], edge), test[1])
    if train[0].shape[1:] != test[0].shape[1:]:
        raise UserError(
            f"{name}: training images are {tuple(train[0].shape[1:])}, test images {tuple(test[0].shape[1:])} "
            "(channels, height, width); add channels=1|3 or resolution=... to make them equal."
        )
    digest = hashlib.sha256()
    for images, labels in (train, test):
        digest.update(repr(tuple(images.shape)).encode())
        digest.update(images.contiguous().numpy().data)
        digest.update(labels.contiguous().numpy().data)
    return ImageSet(
        name, count, Tensors(*train), Tensors(*test), augmentation, statistics(train[0]), digest.hexdigest()[:16]
    )


def check_labels(name: str, train: Tensor, test: Tensor, classes: int | None) -> int:
    """The number of classes. Raises UserError for empty parts, one class or labels out of range."""
    for part, labels in (("training", train), ("test", test)):
        if len(labels) == 0:
            raise UserError(f"{name} has no {part} images; check the path.")
    count = int(train.max()) + 1 if classes is None else whole("classes", classes, 2)
    if len(torch.unique(train)) < 2:
        raise UserError(f"{name} has one class only; classification needs training images of at least two.")
    for part, labels in (("training", train), ("test", test)):
        wrong = (labels < 0) | (labels >= count)
        if wrong.any():
            row = int(wrong.nonzero()[0, 0])
            raise UserError(
                f"{name}: label {int(labels[row])} of {part} image {row} is out of range; labels are 0 to {count - 1}; "
                "correct it, or set classes=..."
            )
    return count


def own_split(count: int, share: float, *names: str | int) -> tuple[Tensor, Tensor]:
    """Random disjoint index tensors over `count` examples, the second with `share` of them; fixed by the names."""
    order = torch.randperm(count, generator=stream("split", *names))
    second = max(1, round(count * share))
    return order[second:], order[:second]
