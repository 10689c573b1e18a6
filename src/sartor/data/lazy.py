"""Examples that are read when asked for, and data sets from a user's own loaders."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from sartor.core.errors import UserError
from sartor.data.images import ImageSet
from sartor.data.tensors import stream_seed
from sartor.data.vision import whole


@dataclass(frozen=True)
class _Seeded(Dataset[Any]):
    """A data set whose torch randomness depends on (seed, example) alone; a user error becomes an item."""

    data: Dataset[Any]
    seed: int

    def __getitem__(self, i: int) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(self.seed, i))
            try:
                return self.data[i]
            except UserError as error:
                return error


@dataclass(frozen=True)
class _Collate:
    """`collate` that passes a user error on: raised in a worker, it would come back wrapped in a traceback.

    A class and not a closure, so that it reaches spawned workers.
    """

    collate: Callable[[list[Any]], Any]

    def __call__(self, items: list[Any]) -> Any:
        return next((item for item in items if isinstance(item, UserError)), None) or self.collate(items)


@dataclass(frozen=True)
class Lazy:
    """Examples of a map-style data set of (image, label), read by `workers` processes (0: in this one).

    classes: labels must be below it, where they are not known beforehand (None: they are).
    """

    data: Dataset[Any]
    shape: tuple[int, int, int]
    workers: int = 0
    collate: Callable[[list[Any]], Any] = default_collate
    classes: int | None = None

    def __len__(self) -> int:
        return len(self.data)  # type: ignore[arg-type]

    def fetch(self, parts: Sequence[Tensor], seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        loader: DataLoader[Any] = DataLoader(
            _Seeded(self.data, seed),
            batch_sampler=[part.tolist() for part in parts],
            num_workers=self.workers,
            collate_fn=_Collate(self.collate),
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator().manual_seed(seed),
        )
        for batch in loader:
            if isinstance(batch, UserError):
                raise batch
            images, labels = batch
            if self.classes is not None and (labels.min() < 0 or labels.max() >= self.classes):
                given = f"{int(labels.min())} to {int(labels.max())}"
                raise UserError(f"a batch has labels {given}, allowed are 0 to {self.classes - 1}; set classes=...")
            yield images, labels

    def to(self, device: torch.device) -> Lazy:
        return self


def image_set_from_loaders(
    train: DataLoader[Any], test: DataLoader[Any], *, classes: int, name: str = "loaders"
) -> ImageSet:
    """A data set from two DataLoaders over map-style data sets of (image (C, H, W) float, label).

    Their data sets, collate functions and worker counts are used; batch sizes and order are sartor's, so that they
    follow from seeds. Images are taken as they come: normalise and augment in the loaders' own transforms (with
    torch's random numbers; the validation part sees the training transforms).
    Raises UserError for iterable data sets, images that are not (C, H, W), or fewer than two classes.
    """
    whole("classes", classes, 2)
    parts = [_lazy(loader, classes, part) for loader, part in ((train, "training"), (test, "test"))]
    if parts[0].shape != parts[1].shape:
        raise UserError(f"training images are {parts[0].shape}, test images {parts[1].shape}; make them equal.")
    content = hashlib.sha256(repr((name, classes, *((len(p), p.shape) for p in parts))).encode())
    return ImageSet(name, classes, parts[0], parts[1], "none", None, content.hexdigest()[:16])


def _lazy(loader: DataLoader[Any], classes: int, part: str) -> Lazy:
    if isinstance(loader.dataset, IterableDataset):
        raise UserError(
            f"the {part} loader iterates over a stream; give one over a data set with an index and a length."
        )
    lazy = Lazy(loader.dataset, (0, 0, 0), loader.num_workers, loader.collate_fn, classes)
    if len(lazy) == 0:
        raise UserError(f"the {part} loader has no examples; check its data set.")
    image, _ = next(iter(replace(lazy, workers=0).fetch([torch.tensor([0])], 0)))
    if image.ndim != 4 or not image.is_floating_point():
        raise UserError(
            f"the {part} loader gives images of shape {tuple(image.shape[1:])} and type {image.dtype}; "
            "give (C, H, W) floats, for example by transforms.ToTensor()."
        )
    c, h, w = image.shape[1:]
    return replace(lazy, shape=(c, h, w))
