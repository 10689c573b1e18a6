"""The Expanded Search Space of Network Space Search: how deep and how wide each stage is, and nothing else.

M.-F. Hong et al., "Network Space Search for Pareto-Efficient Spaces", 2021, section 3.2 and 6.1. Stages of identical
residual blocks behind a 3x3 stem, average pooling and a linear classifier. Windows of neighbouring depths and widths
(`spaces/windows.py`) make it a space of spaces.

The paper states no strides: (1, 2, 2), since with a stride in the first stage no network at 32 pixels would have the
multiply-accumulates that it reports. Nor does it say how a block adds what it is given where shapes differ: the first
block of a stage has a 1x1 convolution with norm beside it, also where it could do without.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial, reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from sartor.core import Json, Part, Slot, Terms
from sartor.core.errors import UserError, unknown
from sartor.spaces.chain import ChainSpace
from sartor.spaces.options import check_ranges, halve

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sartor.core.task import Supernet
    from sartor.layers.residual import Convolution

_BYTES = 4


class Expanded(ChainSpace):
    """Slots: depth and width of every stage; (16 x 512)^3 = 5.5e11 networks.

    stages: how many; depth, width: the most blocks and channels of each, so that every number from 1 on is a candidate;
    strides: of the first block of each stage, as 1-2-2 (the default is 1, then 2 each); stem: its channels; block:
    basic (as published), bottleneck or inverted; resolution, channels, classes: of the data.
    """

    def __init__(
        self,
        *,
        stages: int = 3,
        depth: int = 16,
        width: int = 512,
        strides: str | None = None,
        stem: int = 16,
        block: str = "basic",
        resolution: int = 32,
        channels: int = 3,
        classes: int = 10,
    ) -> None:
        from sartor.layers.residual import BLOCKS

        if block not in BLOCKS:
            raise unknown("block of space 'expanded':", block, BLOCKS)
        check_ranges(
            "expanded",
            ("stages", stages, 1, 16),
            ("depth", depth, 1, 64),
            ("width", width, 1, 4096),
            ("stem", stem, 1, 1024),
            ("resolution", resolution, 4, 1024),
            ("channels", channels, 1, 1024),
            ("classes", classes, 2, 10**6),
        )
        given = "-".join(["1", *["2"] * (stages - 1)]) if strides is None else str(strides)
        if not re.fullmatch(rf"[12](-[12]){{{stages - 1}}}", given):
            raise UserError(f"expanded option strides={given!r} does not fit; give 1 or 2 for each of {stages} stages, "
                            "as 1-2-2.")  # fmt: skip
        self.stages, self.depth, self.width, self.strides = stages, depth, width, tuple(map(int, given.split("-")))
        self.stem, self.block = stem, block
        self.resolution, self.channels, self.classes = resolution, channels, classes
        depths, widths = np.arange(1.0, depth + 1)[:, None], np.arange(1.0, width + 1)[:, None]
        self.slots = tuple(
            slot
            for i in range(1, stages + 1)
            for slot in (
                Slot(f"depth{i}", tuple(map(str, range(1, depth + 1))), features=depths),
                Slot(f"width{i}", tuple(map(str, range(1, width + 1))), features=np.hstack([widths, widths**2])),
            )
        )

    def spec(self) -> dict[str, Json]:
        return {
            "space": "expanded",
            "stages": self.stages,
            "depth": self.depth,
            "width": self.width,
            "strides": "-".join(map(str, self.strides)),
            "stem": self.stem,
            "block": self.block,
            "resolution": self.resolution,
            "channels": self.channels,
            "classes": self.classes,
        }

    def sizes(self, arch: Sequence[int]) -> list[tuple[int, int]]:
        """Depth and width of every stage."""
        chosen = self.canonical(arch)
        return [(d + 1, w + 1) for d, w in zip(chosen[::2], chosen[1::2])]

    def inputs(self, batch: int, arch: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        import torch

        return (torch.randn(batch, self.channels, self.resolution, self.resolution),)

    # ------------------------------------------------------------------ networks

    def parts(self, arch: Sequence[int]) -> list[Part]:
        from sartor.layers.residual import ResidualBlock

        pixels, inputs = self.resolution, self.stem
        shape = ((self.channels, pixels, pixels),)
        chain = [Part(f"stem3-{self.channels}-{inputs}@{pixels}", None, partial(_stem, self.channels, inputs), shape)]
        for i, ((depth, width), stride) in enumerate(zip(self.sizes(arch), self.strides)):
            for first in (True, *[False] * (depth - 1)):
                row = (self.block, inputs, width, stride if first else 1, first)
                key = f"{self.block}{'-first' * first}-{inputs}-{width}-s{row[3]}@{pixels}"
                # a width slot is the first block of its stage, a depth slot those behind
                chain.append(Part(key, 2 * i + first, partial(ResidualBlock, *row), ((inputs, pixels, pixels),)))
                inputs, pixels = width, halve(pixels, row[3])
        make = partial(_head, inputs, self.classes)
        return [*chain, Part(f"pool-linear-{inputs}-{self.classes}@{pixels}", None, make, ((inputs, pixels, pixels),))]

    @property
    def has_supernet(self) -> bool:
        return True

    def supernet(self) -> Supernet:
        from sartor.spaces.masked import MaskedSupernet

        return MaskedSupernet(self)

    # ------------------------------------------------------------------ costs

    def count_terms(self, name: str) -> Terms:
        """Exact, though no part depends on one choice alone: depths count blocks of a width, first blocks join two."""
        widths, more = np.arange(1, self.width + 1), np.arange(self.depth)
        unary = [np.zeros(len(slot)) for slot in self.slots]
        pair: dict[tuple[int, int], Any] = {}
        for i in range(self.stages):
            depth, width = 2 * i, 2 * i + 1
            if i == 0:
                unary[width] = _count(name, self._block(0, self.stem, widths, True))
            else:
                pair[width - 2, width] = _count(name, self._block(i, widths[:, None], widths[None, :], True))
            pair[depth, width] = np.outer(more, _count(name, self._block(i, widths, widths, False)))
        weights = widths * self.classes
        touched = _BYTES * (weights + widths + self.classes)
        unary[-1] = unary[-1] + (touched if name == "mem_access_bytes" else weights)
        return Terms(float(_count(name, self._stem())), tuple(row.astype(np.float64) for row in unary), pair)

    def macs(self, depths: Sequence[Any], widths: Sequence[Any]) -> Any:
        """Multiply-accumulates of a network of `basic` blocks; sizes may be no whole numbers, and tensors."""
        total, inputs = _count("macs", self._stem()), self.stem
        for i, (depth, width) in enumerate(zip(depths, widths)):
            total = total + _count("macs", self._block(i, inputs, width, True))
            total = total + (depth - 1) * _count("macs", self._block(i, width, width, False))
            inputs = width
        return total + inputs * self.classes

    def pixels(self, stage: int) -> int:
        """Of an edge of what a stage is given; of the last one's output where there is no such stage."""
        return reduce(halve, self.strides[:stage], self.resolution)

    def _stem(self) -> list[tuple[Convolution, int]]:
        from sartor.layers.residual import Convolution

        return [(Convolution(self.channels, self.stem, 3), self.resolution)]

    def _block(self, stage: int, inputs: Any, width: Any, first: bool) -> list[tuple[Convolution, int]]:
        """The convolutions of a block, and the pixels of an edge of what each is given."""
        from sartor.layers.residual import beside, convolutions

        stride, size = (self.strides[stage], self.pixels(stage)) if first else (1, self.pixels(stage + 1))
        project = beside(self.block, inputs, width, stride, first)
        rows = [] if project is None else [(project, size)]
        for row in convolutions(self.block, inputs, width, stride):
            rows.append((row, size))
            size = halve(size, row.stride)
        return rows


def _count(name: str, rows: Sequence[tuple[Convolution, int]]) -> Any:
    total: Any = 0.0
    for row, before in rows:
        after = halve(before, row.stride)
        weights = row.kernel**2 * row.outputs * (1 if row.depthwise else row.inputs)
        if name == "macs":
            total = total + weights * after**2
        elif name == "params":
            total = total + weights
        else:
            total = total + _BYTES * (row.inputs * before**2 + weights + row.outputs * after**2)
    return total


def _stem(inputs: int, outputs: int) -> nn.Module:
    from torch import nn

    from sartor.layers.mbconv import conv_norm_act

    return nn.Sequential(*conv_norm_act(inputs, outputs, 3, act=nn.ReLU))


def _head(inputs: int, classes: int) -> nn.Module:
    from torch import nn

    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))
