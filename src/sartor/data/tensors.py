"""Images on the device: one gather per batch, batched augmentation, everything a function of named seeds.

Order and augmentation of an epoch are drawn on the CPU from (seed, split, epoch), so every device sees the same
batches. There is no Python loop over images.

What it costs, CIFAR-10 at 32 px in batches of 128 on a CPU: order, gather, shift, flip and normalising take 1.2-2.5 ms
of a training step of 270-340 ms of a MobileNet-like network with 25,000 parameters, below 1 % (1-5 % on two cores that
others use too). There is nothing to win by loading ahead in another process.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from sartor.core.errors import UserError
from sartor.core.memory import image_layout

Augmentation: TypeAlias = Literal["none", "shift", "shift_flip", "crop_flip"]
"""`shift`: pad with black by an eighth and crop at random; `crop`: random area of 25-100 % at aspect 3/4-4/3, scaled
back; `flip`: mirror half of the images."""
_DRAWS = 5  # uniform numbers an augmentation uses per image


def stream_seed(*names: str | int) -> int:
    """A 63-bit seed that is a pure function of the names."""
    digest = hashlib.sha256(json.dumps(names).encode()).digest()
    return int.from_bytes(digest[:8], "little") & (2**63 - 1)


def stream(*names: str | int) -> torch.Generator:
    """A CPU generator seeded by `stream_seed`."""
    return torch.Generator().manual_seed(stream_seed(*names))


def on_device(device: torch.device | str) -> torch.device:
    """The device of that name. Raises UserError when there is none."""
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        detail = str(error).partition("\n")[0][:120]
        raise UserError(f"device {device!s} is not available ({detail}); use cpu or cuda[:INDEX].") from None


class Examples(Protocol):
    """Images with labels, fetched a batch of indices at a time."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width of every image."""
        ...

    def __len__(self) -> int: ...

    def fetch(self, parts: Sequence[Tensor], seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Per index tensor (B,): images (B, C, H, W) and labels (B,) int64. seed: for random transforms, if any."""
        ...

    def to(self, device: torch.device) -> Examples:
        """The same examples there, where they are tensors."""
        ...


@dataclass(frozen=True)
class Tensors:
    """Examples held as tensors: images (N, C, H, W) uint8, labels (N,) int64, on one device."""

    images: Tensor
    labels: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        _, c, h, w = self.images.shape
        return c, h, w

    def __len__(self) -> int:
        return len(self.images)

    def fetch(self, parts: Sequence[Tensor], seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        for part in parts:
            index = part.to(self.images.device, non_blocking=True)
            yield self.images.index_select(0, index), self.labels.index_select(0, index)

    def to(self, device: torch.device) -> Tensors:
        return Tensors(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Batches:
    """One epoch of ((images,), labels): float32 (B, C, H, W) in channels-last order, int64 (B,). Sized, re-iterable.

    examples: where they come from; parts: indices per batch; draws: per batch (B, 5) in [0, 1) for `augment`, or
    None; prepare: images after augmentation to network input; seed: for the examples' own transforms.
    """

    examples: Examples
    parts: Sequence[Tensor]
    draws: Sequence[Tensor] | None
    augmentation: Augmentation
    prepare: Callable[[Tensor], Tensor]
    device: torch.device
    seed: int

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        for i, (images, labels) in enumerate(self.examples.fetch(self.parts, self.seed)):
            images = images.to(self.device, non_blocking=True)
            if self.draws is not None:
                images = augment(images, self.draws[i].to(self.device, non_blocking=True), self.augmentation)
            yield (self.prepare(images),), labels.to(self.device, non_blocking=True)


def epoch(
    examples: Examples,
    index: Tensor,
    *,
    names: tuple[str | int, ...],
    size: int,
    limit: int | None,
    shuffle: bool,
    augmentation: Augmentation,
    prepare: Callable[[Tensor], Tensor],
    device: torch.device,
) -> Batches:
    """The batches of one epoch over `index` (n,), a pure function of `names`.

    shuffle: random order and augmentation, and a ragged last batch is left out (the shapes stay the same) unless it
    is the only one; otherwise the order of `index`, plain, complete. limit: at most that many batches.
    """
    n, draws = len(index), None
    if shuffle:
        generator = stream("batches", *names)
        index = index[torch.randperm(n, generator=generator)]
        if augmentation != "none":
            draws = torch.split(torch.rand(n, _DRAWS, generator=generator), size)
        index = index[: n // size * size or n]
    parts = torch.split(index, size)[:limit]
    return Batches(examples, parts, draws, augmentation, prepare, device, stream_seed("examples", *names))


def augment(images: Tensor, draws: Tensor, kind: Augmentation) -> Tensor:
    """Augment (B, C, H, W) uint8 by `draws` (B, 5) in [0, 1); the same numbers give the same images.

    Returns uint8 for `shift`, float32 in 0-255 for `crop_flip`, same shape.
    """
    if kind == "none":
        return images
    return _crop(images, draws) if kind == "crop_flip" else _shift(images, draws, flip=kind == "shift_flip")


def _shift(images: Tensor, draws: Tensor, flip: bool) -> Tensor:
    b, c, h, w = images.shape
    pad = max(1, round(min(h, w) / 8))
    padded = functional.pad(images, (pad, pad, pad, pad))
    across = torch.arange(w, device=images.device).expand(b, w)
    if flip:
        across = torch.where(draws[:, 2:3] < 0.5, w - 1 - across, across)
    offset = (draws[:, :2] * (2 * pad + 1)).long()
    rows = offset[:, :1] + torch.arange(h, device=images.device)
    flat = rows[:, :, None] * (w + 2 * pad) + (offset[:, 1:] + across)[:, None, :]
    # one gather over flattened pixels is ten times faster on a CPU than indexing with four tensors
    return padded.view(b, c, -1).gather(2, flat.view(b, 1, -1).expand(b, c, -1)).view(b, c, h, w)


def _crop(images: Tensor, draws: Tensor) -> Tensor:
    area, aspect, x, y, mirror = draws.unbind(1)
    area, ratio = 0.25 + 0.75 * area, torch.exp(math.log(4 / 3) * (2 * aspect - 1))
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    theta = images.new_zeros(len(images), 2, 3, dtype=torch.float32)
    theta[:, 0, 0] = torch.where(mirror < 0.5, -width, width)
    theta[:, 0, 2] = (1 - width) * (2 * x - 1)
    theta[:, 1, 1] = height
    theta[:, 1, 2] = (1 - height) * (2 * y - 1)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    return functional.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)


def statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per channel of (N, C, H, W) uint8, in 0-255, exact whatever the thread count."""
    total, squares = torch.zeros(2, images.shape[1], dtype=torch.float64)
    for part in torch.split(images, 1024):
        wide = part.double()  # whole numbers below 2^53: every partial sum is exact
        total += wide.sum((0, 2, 3))
        squares += wide.square_().sum((0, 2, 3))
    count = images.numel() / images.shape[1]
    mean = total / count
    std = (squares / count - mean**2).clamp(min=0).sqrt()
    return mean.float(), torch.where(std > 0, std, 1.0).float()


def normaliser(mean: Tensor, std: Tensor, device: torch.device) -> Callable[[Tensor], Tensor]:
    """(B, C, H, W) in 0-255 to float32 of mean 0 and deviation 1 per channel, in the device's `image_layout`."""
    scale = (1 / std).view(1, -1, 1, 1).to(device)
    shift = (-mean / std).view(1, -1, 1, 1).to(device)
    layout = image_layout(device)

    def prepare(images: Tensor) -> Tensor:
        return images.to(torch.float32, memory_format=layout, copy=True).mul_(scale).add_(shift)

    return prepare
