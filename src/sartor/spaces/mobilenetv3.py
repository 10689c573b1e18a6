"""The MobileNetV3 space of Once-for-All: five units, each of 7,371 blocks; what MathNAS calls a block is a unit here.

H. Cai et al., "Once-for-All: Train One Network and Specialize it for Efficient Deployment", ICLR 2020; layout as in
ALGORITHMS 7.2. A unit has 2 to 4 layers, each an inverted residual with kernel 3, 5 or 7 and expansion 3, 4 or 6:
9^2 + 9^3 + 9^4 = 7,371. In the supernet kernels, expansions and depths share weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from sartor.core import F, Json, Part, Slot
from sartor.core.errors import UserError, unknown
from sartor.spaces.chain import ChainSpace
from sartor.spaces.options import check_ranges, halve, widened

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sartor.core.task import Supernet

KERNELS, EXPANSIONS, DEPTHS = (3, 5, 7), (3, 4, 6), (2, 3, 4)
OPERATORS = tuple(product(KERNELS, EXPANSIONS))
WIDTHS = (24, 40, 80, 112, 160)
STEM, FIRST, HEAD, HIDDEN = 16, 16, 960, 1280
HARD_SWISH = (False, False, True, True, True)  # else ReLU
SQUEEZE = (False, True, False, True, True)


@dataclass(frozen=True)
class Layout:
    """Strides of stem and units, and the images they are for."""

    stem: int
    strides: tuple[int, int, int, int, int]
    resolution: int
    classes: int


PRESETS = {
    "ofa": Layout(stem=2, strides=(2, 2, 2, 1, 2), resolution=224, classes=1000),
    "cifar": Layout(stem=1, strides=(1, 2, 2, 1, 2), resolution=32, classes=10),
}

Block = tuple[tuple[int, int], ...]
"""Kernel and expansion of each layer of a unit."""


@cache
def blocks() -> tuple[Block, ...]:
    """All 7,371, the shallow ones first."""
    return tuple(block for depth in DEPTHS for block in product(OPERATORS, repeat=depth))


@cache
def features() -> F:
    """(7,371, 22): per layer kernel and expansion as numbers, each with how far the middle one is off the line.

    And their product, as the depthwise convolution has it; of the third and fourth layer also whether they exist. So
    few networks tell about all blocks, and multiply-accumulates are linear in them.
    """
    out = np.zeros((len(blocks()), 5 * max(DEPTHS) + len(DEPTHS) - 1))
    for row, block in zip(out, blocks()):
        for i, (k, e) in enumerate(block):
            row[5 * i : 5 * i + 5] = k / 7, k == 5, e / 6, e == 4, e * k**2 / (6 * 7**2)
            if i >= min(DEPTHS):
                row[5 * max(DEPTHS) + i - min(DEPTHS)] = 1.0
    return out


class MobileNetV3(ChainSpace):
    """One of 7,371 blocks in each of five units.

    preset: `ofa` for large images, `cifar` for 32 pixels (fewer strides); resolution, classes: default to the preset's;
    channels: of the images; width: multiplier of all channels, rounded to multiples of 8; dropout: before the
    classifier.
    """

    presets = tuple(PRESETS)
    local_parts = True

    def __init__(
        self,
        preset: str = "ofa",
        *,
        resolution: int | None = None,
        classes: int | None = None,
        channels: int = 3,
        width: float = 1.0,
        dropout: float = 0.1,
    ) -> None:
        from sartor.layers.mbconv import make_divisible

        if not isinstance(preset, str) or preset not in PRESETS:
            raise unknown("preset of space 'mobilenetv3':", preset, PRESETS)
        self.preset, self.layout = preset, PRESETS[preset]
        self.resolution = self.layout.resolution if resolution is None else resolution
        self.classes = self.layout.classes if classes is None else classes
        self.channels = channels
        check_ranges(
            "mobilenetv3",
            ("resolution", self.resolution, 8, 1024),
            ("channels", channels, 1, 1024),
            ("classes", self.classes, 2, 10**6),
            ("width", width, 0.05, 20.0),
            ("dropout", dropout, 0.0, 0.95),
        )
        self.width, self.dropout = float(width), float(dropout)
        self.stem, self.first, self.head, self.hidden, *widths = (
            make_divisible(c * self.width) for c in (STEM, FIRST, HEAD, HIDDEN, *WIDTHS)
        )
        self.widths = tuple(widths)
        names = tuple(" ".join(f"k{k}e{e}" for k, e in block) for block in blocks())
        self.slots = tuple(Slot(f"unit{i + 1}", names, features()) for i in range(len(WIDTHS)))

    def spec(self) -> dict[str, Json]:
        return {
            "space": "mobilenetv3",
            "preset": self.preset,
            "resolution": self.resolution,
            "classes": self.classes,
            "channels": self.channels,
            "width": self.width,
            "dropout": self.dropout,
        }

    def scaled(self, width: float) -> MobileNetV3:
        return widened(self, width)

    def inputs(self, batch: int, arch: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        import torch

        return (torch.randn(batch, self.channels, self.resolution, self.resolution),)

    def index(self, unit: Sequence[tuple[int, int]]) -> int:
        """The candidate with these layers, each (kernel, expansion). Raises UserError where there is none."""
        try:
            return _index()[tuple(unit)]
        except (KeyError, TypeError):
            raise UserError(
                f"no unit has the layers {list(unit)!r}; give 2 to 4 of (kernel, expansion), kernels 3, 5 or 7 and "
                "expansions 3, 4 or 6."
            ) from None

    # ------------------------------------------------------------------ networks

    def parts(self, arch: Sequence[int]) -> list[Part]:
        pixels = halve(self.resolution, self.layout.stem)
        shape = ((self.channels, self.resolution, self.resolution),)
        begin = (self.channels, self.stem, self.first, self.layout.stem)
        chain = [Part(f"v3-stem-{'-'.join(map(str, begin))}@{self.resolution}", None, partial(_stem, *begin), shape)]
        for unit, k in enumerate(self.canonical(arch)):
            for layer, (kernel, expansion) in enumerate(blocks()[k]):
                row = (*self.row(unit, layer), kernel, expansion)
                inputs, _, stride = row[:3]
                key = f"v3-{'-'.join(map(str, row))}@{pixels}"
                chain.append(Part(key, unit, partial(_layer, *row), ((inputs, pixels, pixels),)))
                pixels = halve(pixels, stride)
        last = (self.widths[-1], self.head, self.hidden, self.classes, self.dropout)
        key = f"v3-head-{'-'.join(map(str, last))}@{pixels}"
        return [*chain, Part(key, None, partial(_head, *last), ((self.widths[-1], pixels, pixels),))]

    def row(self, unit: int, layer: int) -> tuple[int, int, int, bool, bool]:
        """Of a layer: input channels, output channels, stride, squeeze-excite, hard swish."""
        before = self.first if unit == 0 else self.widths[unit - 1]
        inputs, stride = (before, self.layout.strides[unit]) if layer == 0 else (self.widths[unit], 1)
        return inputs, self.widths[unit], stride, SQUEEZE[unit], HARD_SWISH[unit]

    def supernet(self) -> Supernet:
        from sartor.spaces.elastic import UnitSupernet

        return UnitSupernet(self)


@cache
def _index() -> dict[Block, int]:
    return {block: i for i, block in enumerate(blocks())}


def activation(hard_swish: bool) -> Callable[[], nn.Module]:
    from torch import nn

    return nn.Hardswish if hard_swish else nn.ReLU


def _stem(channels: int, stem: int, first: int, stride: int) -> nn.Module:
    from torch import nn

    from sartor.layers.mbconv import MBConv, conv_norm_act

    begin = conv_norm_act(channels, stem, 3, stride, act=nn.Hardswish)
    return nn.Sequential(*begin, MBConv(stem, first, 3, 1, 1, act=nn.ReLU))


def _layer(
    inputs: int, outputs: int, stride: int, se: bool, hard_swish: bool, kernel: int, expansion: int
) -> nn.Module:
    from sartor.layers.mbconv import MBConv

    return MBConv(inputs, outputs, kernel, expansion, stride, se, activation(hard_swish))


def _head(inputs: int, features: int, hidden: int, classes: int, dropout: float) -> nn.Module:
    from torch import nn

    from sartor.layers.mbconv import conv_norm_act

    return nn.Sequential(
        *conv_norm_act(inputs, features, 1, act=nn.Hardswish),
        nn.AdaptiveAvgPool2d(1),
        nn.Conv2d(features, hidden, 1, bias=False),
        nn.Hardswish(),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(hidden, classes),
    )
