"""SuperViT: the supernet of NASViT as MathNAS cuts it, nine slots of 195 candidates in all.

C. Gong et al., "NASViT", ICLR 2022; MathNAS, appendix C.1 and its code (ALGORITHMS 7.3). Three stages of inverted
residuals and four that begin with one and go on with attention; a candidate is a width, a depth, a kernel and an
expansion, all layers of a stage alike. The published table and the published code differ: `variant` has both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from sartor.core import F, Json, Optimiser, Part, Slot
from sartor.core.errors import unknown
from sartor.spaces.chain import ChainSpace
from sartor.spaces.options import check_ranges, halve, widened

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sartor.core.task import Supernet

RESOLUTIONS = (192, 224, 256, 288)
LAST = 6  # how many times the last stage is widened before the pool


@dataclass(frozen=True)
class Stage:
    """What a stage can be. attention: layers after the first attend."""

    name: str
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    kernels: tuple[int, ...]
    expansions: tuple[int, ...]
    se: bool
    attention: bool

    def options(self) -> list[tuple[int, int, int, int]]:
        """(width, depth, kernel, expansion) of every candidate."""
        return list(product(self.widths, self.depths, self.kernels, self.expansions))


STEM, POOL = (16, 24), (1792, 1984)
CODE = (
    Stage("mbconv1", (16, 24), (1, 2), (3, 5), (1,), False, False),
    Stage("mbconv2", (24, 32), (3, 4, 5), (3, 5), (4, 5, 6), False, False),
    Stage("mbconv3", (32, 40), (3, 4, 5, 6), (3,), (4, 5, 6), True, False),
    Stage("transformer4", (64, 72), (3, 4, 5, 6), (3,), (4, 5, 6), False, True),
    Stage("transformer5", (112, 120, 128), (3, 4, 5, 6, 7, 8, 9), (3,), (4, 5, 6), True, True),
    Stage("transformer6", (160, 168, 176, 184), (3, 4, 5, 6, 7, 8), (3,), (6,), True, True),
    Stage("transformer7", (208, 216, 224), (3, 4, 5, 6), (3,), (6,), True, True),
)
TABLE = (
    *CODE[:2],
    Stage("mbconv3", (32, 40), (3, 4, 5, 6), (3, 5), (4, 5, 6), True, False),
    Stage("transformer4", (64, 72), (3, 4, 5, 6), (3,), (1, 2), False, True),
    Stage("transformer5", (112, 120, 128), (3, 4, 5, 6, 7, 8), (3,), (1, 2), True, True),
    Stage("transformer6", (160, 168, 176, 184), (3, 4, 5, 6, 7, 8), (3,), (1, 2), True, True),
    Stage("transformer7", (208, 216, 224), (3, 4, 5, 6), (3,), (1, 2), True, True),
)
VARIANTS = {"code": CODE, "table": TABLE}
STRIDES = {"nasvit": (2, 1, 2, 2, 2, 2, 1, 2), "cifar": (1, 1, 2, 2, 1, 2, 1, 1)}  # stem, then the stages


class SuperViT(ChainSpace):
    """Nine slots: the stem's width, seven stages, the features before the classifier.

    preset: `nasvit` for large images, `cifar` for 32 pixels (fewer strides); variant: `code` (2 to 63 candidates a
    slot, 12,039,487,488 networks a resolution) or `table`; resolution: of the images, each is a space of its own;
    width: multiplier of all channels, rounded to multiples of 8, which may make candidates alike.
    """

    chained_parts = True
    presets = tuple(STRIDES)
    optimiser: Optimiser = "adamw"

    def __init__(
        self,
        preset: str = "nasvit",
        *,
        variant: str = "code",
        resolution: int | None = None,
        classes: int | None = None,
        channels: int = 3,
        width: float = 1.0,
        dropout: float = 0.2,
    ) -> None:
        if not isinstance(preset, str) or preset not in STRIDES:
            raise unknown("preset of space 'supervit':", preset, STRIDES)
        if variant not in VARIANTS:
            raise unknown("variant of space 'supervit':", variant, VARIANTS)
        self.preset, self.variant, self.strides = preset, variant, STRIDES[preset]
        small = preset == "cifar"
        self.resolution = (32 if small else RESOLUTIONS[0]) if resolution is None else resolution
        self.classes = (10 if small else 1000) if classes is None else classes
        self.channels = channels
        check_ranges(
            "supervit",
            ("resolution", self.resolution, 8, 1024),
            ("channels", channels, 1, 1024),
            ("classes", self.classes, 2, 10**6),
            ("width", width, 0.05, 20.0),
            ("dropout", dropout, 0.0, 0.95),
        )
        self.width, self.dropout, self.stages = float(width), float(dropout), VARIANTS[variant]
        self.options = [stage.options() for stage in self.stages]
        features = [np.array(options, dtype=float) for options in self.options]
        self.slots = (
            Slot("stem", tuple(f"w{w}" for w in STEM)),
            *(
                Slot(stage.name, tuple("w{} d{} k{} e{}".format(*o) for o in options), _features(table))
                for stage, options, table in zip(self.stages, self.options, features)
            ),
            Slot("pool", tuple(f"w{w}" for w in POOL)),
        )

    def spec(self) -> dict[str, Json]:
        return {
            "space": "supervit",
            "preset": self.preset,
            "variant": self.variant,
            "resolution": self.resolution,
            "classes": self.classes,
            "channels": self.channels,
            "width": self.width,
            "dropout": self.dropout,
        }

    def scaled(self, width: float) -> SuperViT:
        return widened(self, width)

    def inputs(self, batch: int, arch: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        import torch

        return (torch.randn(batch, self.channels, self.resolution, self.resolution),)

    # ------------------------------------------------------------------ networks

    def wide(self, channels: int) -> int:
        """Published channels, times the width of the space."""
        from sartor.layers.mbconv import make_divisible

        return channels if self.width == 1.0 else make_divisible(channels * self.width)

    def parts(self, arch: Sequence[int]) -> list[Part]:
        stem, *middle, pool = self.canonical(arch)
        width, stride, size = self.wide(STEM[stem]), self.strides[0], self.resolution
        begin = (self.channels, width, stride)
        chain = [Part(f"vit-stem-{_key(begin)}@{size}", 0, partial(_stem, *begin), ((self.channels, size, size),))]
        size = halve(size, stride)
        for i, (stage, k) in enumerate(zip(self.stages, middle)):
            wide, depth, kernel, expansion = self.options[i][k]
            wide = self.wide(wide)
            for layer in range(depth):
                shape = ((width, size, size),)
                if stage.attention and layer:
                    make, key = partial(_attention, wide, size), f"vit-attention-{wide}@{size}"
                else:
                    row = (width, wide, kernel, expansion, self.strides[i + 1] if layer == 0 else 1, stage.se)
                    make, key = partial(_mbconv, *row), f"vit-mb-{_key(row)}@{size}"
                    width, size = wide, halve(size, row[4])
                chain.append(Part(key, i + 1, make, shape))
        last = (width, self.wide(POOL[pool]), self.classes, self.dropout)
        return [
            *chain,
            Part(f"vit-pool-{_key(last)}@{size}", len(self.slots) - 1, partial(_pool, *last), ((width, size, size),)),
        ]

    @property
    def has_supernet(self) -> bool:
        return True

    def supernet(self) -> Supernet:
        from sartor.spaces.elastic import StageSupernet

        return StageSupernet(self)


def _features(table: F) -> F:
    """Numbers as numbers, width x depth and expansion x width, and which depth it is."""
    width, depth, kernel, expansion = (table / table.max(axis=0)).T
    depths = np.unique(depth)
    return np.column_stack(
        [width, depth, kernel, expansion, width * depth, width * expansion, *(depth == d for d in depths[1:-1])]
    ).astype(float)


def _key(row: Sequence[object]) -> str:
    return "-".join(map(str, row))


def _stem(inputs: int, outputs: int, stride: int) -> nn.Module:
    from torch import nn

    from sartor.layers.mbconv import conv_norm_act

    return nn.Sequential(*conv_norm_act(inputs, outputs, 3, stride, act=nn.Hardswish))


def _mbconv(inputs: int, outputs: int, kernel: int, expansion: int, stride: int, se: bool) -> nn.Module:
    from torch import nn

    from sartor.layers.mbconv import MBConv

    return MBConv(inputs, outputs, kernel, expansion, stride, se, nn.Hardswish)


def _attention(width: int, size: int) -> nn.Module:
    from sartor.layers.attention import AttentionLayer

    return AttentionLayer([width], size)


def _pool(inputs: int, features: int, classes: int, dropout: float) -> nn.Module:
    from torch import nn

    from sartor.layers.mbconv import conv_norm_act

    return nn.Sequential(
        *conv_norm_act(inputs, LAST * inputs, 1, act=nn.Hardswish),
        nn.AdaptiveAvgPool2d(1),
        nn.Conv2d(LAST * inputs, features, 1, bias=False),
        nn.Hardswish(),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(features, classes),
    )
