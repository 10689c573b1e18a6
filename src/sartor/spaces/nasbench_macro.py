"""NAS-Bench-Macro: eight layers of three operators; the accuracy of every network on CIFAR-10 is in a public table.

X. Su et al., "Prioritized Architecture Sampling with Monto-Carlo Tree Search", CVPR 2021. Parameters and
multiply-accumulates are those of the table for all 6,561 networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from sartor.core import Json, Part, Slot
from sartor.spaces.chain import ChainSpace
from sartor.spaces.options import Row, check_ranges, halve, layer_rows, widened

if TYPE_CHECKING:
    from torch import Tensor, nn

OPERATORS = ("identity", "mb3_k3", "mb6_k5")
STEM, STAGES, FEATURES = 32, ((64, 2, 2), (128, 3, 2), (256, 3, 2)), 1280


class NASBenchMacro(ChainSpace):
    """Slots: the operators of eight layers; 3^8 = 6,561 networks.

    An `identity` that changes the shape is a strided 1x1 convolution with norm. width: multiplier of all channels,
    rounded to multiples of 8 (published: 1); resolution, channels, classes: of the data. All values keep the slots.
    """

    local_parts = True

    def __init__(self, *, width: float = 1.0, resolution: int = 32, channels: int = 3, classes: int = 10) -> None:
        from sartor.layers.mbconv import make_divisible

        check_ranges(
            "nas-bench-macro",
            ("width", width, 0.05, 20.0),
            ("resolution", resolution, 8, 1024),
            ("channels", channels, 1, 1024),
            ("classes", classes, 2, 10**6),
        )
        self.width, self.resolution, self.channels, self.classes = float(width), resolution, channels, classes
        self.stem, self.features = (make_divisible(c * width) for c in (STEM, FEATURES))
        stages = [(make_divisible(c * width), layers, stride) for c, layers, stride in STAGES]
        self.rows: tuple[Row, ...] = layer_rows(self.stem, stages, resolution)
        self.slots = tuple(Slot(f"layer{i}", OPERATORS) for i in range(len(self.rows)))

    def spec(self) -> dict[str, Json]:
        return {
            "space": "nas-bench-macro",
            "width": self.width,
            "resolution": self.resolution,
            "channels": self.channels,
            "classes": self.classes,
        }

    def scaled(self, width: float) -> NASBenchMacro:
        return widened(self, width)

    def inputs(self, batch: int, arch: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        import torch

        return (torch.randn(batch, self.channels, self.resolution, self.resolution),)

    def parts(self, arch: Sequence[int]) -> list[Part]:
        size, inputs = self.resolution, self.rows[-1][1]
        last = halve(self.rows[-1][3], self.rows[-1][2])
        stem, head = (self.channels, self.stem), (inputs, self.features, self.classes)
        return [
            Part(f"stem-{self.channels}-{self.stem}@{size}", None, partial(_stem, *stem), ((stem[0], size, size),)),
            *(self._layer(i, k) for i, k in enumerate(self.canonical(arch))),
            Part(f"head-{'-'.join(map(str, head))}@{last}", None, partial(_head, *head), ((inputs, last, last),)),
        ]

    def _layer(self, layer: int, candidate: int) -> Part:
        (inputs, outputs, stride, pixels), name = self.rows[layer], OPERATORS[candidate]
        key = f"{name}-{inputs}-{outputs}-s{stride}@{pixels}"
        return Part(key, layer, partial(_operator, name, inputs, outputs, stride), ((inputs, pixels, pixels),))


def _stem(inputs: int, outputs: int) -> nn.Module:
    from torch import nn

    from sartor.layers.mbconv import conv_norm_act

    return nn.Sequential(*conv_norm_act(inputs, outputs, 3, act=nn.ReLU))


def _operator(name: str, inputs: int, outputs: int, stride: int) -> nn.Module:
    from torch import nn

    from sartor.layers.mbconv import MBConv, conv_norm_act

    if name != "identity":
        return MBConv(inputs, outputs, int(name[-1]), int(name[2]), stride, act=nn.ReLU)
    if stride == 1:
        return nn.Identity()
    return nn.Sequential(*conv_norm_act(inputs, outputs, 1, stride, act=None))


def _head(inputs: int, features: int, classes: int) -> nn.Module:
    from torch import nn

    from sartor.layers.mbconv import conv_norm_act

    return nn.Sequential(
        *conv_norm_act(inputs, features, 1, act=nn.ReLU),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(features, classes),
    )
