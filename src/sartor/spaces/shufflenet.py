"""The ShuffleNetV2 space of SPOS and Supernet Shifting: one of four choice blocks per layer.

Z. Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV 2020; the layout is Table 1
of the appendix of Supernet Shifting, the blocks ALGORITHMS 2.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from sartor.core import Json, Part, Slot
from sartor.core.errors import UserError, unknown
from sartor.spaces.chain import ChainSpace
from sartor.spaces.options import Row, check_ranges, halve, layer_rows, widened

if TYPE_CHECKING:
    from torch import Tensor, nn

BLOCKS = ("k3", "k5", "k7", "x")


@dataclass(frozen=True)
class Layout:
    """stem: channels, stride; stages: channels, blocks, stride; features: channels of the last 1x1 convolution."""

    stem: tuple[int, int]
    stages: tuple[tuple[int, int, int], ...]
    features: int
    resolution: int
    channels: int
    classes: int


_STAGES = ((64, 4, 2), (160, 4, 2), (320, 8, 2), (640, 4, 2))
PRESETS = {
    "spos": Layout((16, 2), _STAGES, 1024, resolution=224, channels=3, classes=1000),
    "cifar": Layout((16, 1), ((64, 4, 1), *_STAGES[1:]), 1024, resolution=32, channels=3, classes=10),
    "tiny": Layout((16, 1), ((32, 2, 2), (64, 2, 2)), 128, resolution=8, channels=1, classes=10),
}


class ShuffleNet(ChainSpace):
    """One choice block of four per layer: 4^20 networks.

    preset: layout (`spos` as published, `cifar` the same for 32x32 images, whose stem and first stage keep the
    resolution, `tiny` of four layers); resolution, channels, classes: default to the preset's; width: multiplier of all
    channels, rounded to multiples of 8; dropout: before the classifier, which has no bias.
    """

    presets = tuple(PRESETS)
    local_parts = True

    def __init__(
        self,
        preset: str = "spos",
        *,
        resolution: int | None = None,
        channels: int | None = None,
        classes: int | None = None,
        width: float = 1.0,
        dropout: float = 0.1,
    ) -> None:
        from sartor.layers.mbconv import make_divisible

        if not isinstance(preset, str) or preset not in PRESETS:
            raise unknown("preset of space 'shufflenet':", preset, PRESETS)
        layout = PRESETS[preset]
        self.preset = preset
        self.resolution = layout.resolution if resolution is None else resolution
        self.channels = layout.channels if channels is None else channels
        self.classes = layout.classes if classes is None else classes
        check_ranges(
            "shufflenet",
            ("resolution", self.resolution, 8, 1024),
            ("channels", self.channels, 1, 1024),
            ("classes", self.classes, 2, 10**6),
            ("width", width, 0.05, 20.0),
            ("dropout", dropout, 0.0, 0.95),
        )
        self.width, self.dropout = float(width), float(dropout)

        def scaled(channels: int) -> int:
            return channels if self.width == 1.0 else make_divisible(channels * self.width)

        self.layout = replace(
            layout,
            stem=(scaled(layout.stem[0]), layout.stem[1]),
            stages=tuple((scaled(c), n, s) for c, n, s in layout.stages),
            features=scaled(layout.features),
        )
        widths = [self.layout.stem[0], *(c for c, _, _ in self.layout.stages)]
        if any(after <= before for before, after in pairwise(widths)):
            raise UserError(f"shufflenet option width={width} leaves stages of {widths} channels; each has to be wider "
                            "than the one before: give a larger width.")  # fmt: skip
        stem, stride = self.layout.stem
        self.rows: tuple[Row, ...] = layer_rows(stem, self.layout.stages, halve(self.resolution, stride))
        self.slots = tuple(Slot(f"layer{i + 1}", BLOCKS) for i in range(len(self.rows)))

    def spec(self) -> dict[str, Json]:
        return {
            "space": "shufflenet",
            "preset": self.preset,
            "resolution": self.resolution,
            "channels": self.channels,
            "classes": self.classes,
            "width": self.width,
            "dropout": self.dropout,
        }

    def scaled(self, width: float) -> ShuffleNet:
        return widened(self, width)

    def inputs(self, batch: int, arch: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        import torch

        return (torch.randn(batch, self.channels, self.resolution, self.resolution),)

    def parts(self, arch: Sequence[int]) -> list[Part]:
        size, (width, stride) = self.resolution, self.layout.stem
        stem = (self.channels, width, stride)
        parts = [
            Part(
                f"stem-{self.channels}-{width}-s{stride}@{size}",
                None,
                lambda: _stem(*stem),
                ((self.channels, size, size),),
            )
        ]
        parts += [self._block(i, k) for i, k in enumerate(self.canonical(arch))]
        inputs, stride, pixels = self.rows[-1][1:]
        last, head = halve(pixels, stride), (inputs, self.layout.features, self.classes, self.dropout)
        key = f"head-{'-'.join(map(str, head))}@{last}"
        return [*parts, Part(key, None, lambda: _head(*head), ((inputs, last, last),))]

    def _block(self, layer: int, candidate: int) -> Part:
        (inputs, outputs, stride, pixels), name = self.rows[layer], BLOCKS[candidate]
        key = f"shuffle-{name}-{inputs}-{outputs}-s{stride}@{pixels}"
        kernel = None if name == "x" else int(name[1])
        return Part(key, layer, lambda: _shuffle(inputs, outputs, kernel, stride), ((inputs, pixels, pixels),))


def _stem(inputs: int, outputs: int, stride: int) -> nn.Module:
    from torch import nn

    from sartor.layers.mbconv import conv_norm_act
    from sartor.layers.shuffle import published_init

    return published_init(nn.Sequential(*conv_norm_act(inputs, outputs, 3, stride, act=nn.ReLU)), 0.01)


def _shuffle(inputs: int, outputs: int, kernel: int | None, stride: int) -> nn.Module:
    from sartor.layers.shuffle import ShuffleBlock, published_init

    return published_init(ShuffleBlock(inputs, outputs, kernel, stride))


def _head(inputs: int, features: int, classes: int, dropout: float) -> nn.Module:
    from torch import nn

    from sartor.layers.mbconv import conv_norm_act
    from sartor.layers.shuffle import published_init

    return published_init(
        nn.Sequential(
            *conv_norm_act(inputs, features, 1, act=nn.ReLU),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(features, classes, bias=False),
        )
    )
