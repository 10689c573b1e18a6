"""Inverted residual blocks (MobileNetV2) and the pieces around them."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from sartor.layers.depthwise import DepthwiseConv2d
from sartor.layers.pointwise import PointwiseConv2d


def make_divisible(channels: float, divisor: int = 8) -> int:
    """Round channels to a multiple of `divisor`, never below 90 % of the wish (ALGORITHMS 0.3)."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def conv_norm_act(
    inputs: int,
    outputs: int,
    kernel: int,
    stride: int = 1,
    depthwise: bool = False,
    act: Callable[[], nn.Module] | None = nn.ReLU6,
) -> list[nn.Module]:
    """Convolution with `same` padding, batch norm and activation: modules to be put in a flat Sequential."""
    conv: nn.Module
    if depthwise:
        conv = DepthwiseConv2d(outputs, kernel, stride)
    elif kernel == 1 and stride > 1:
        conv = PointwiseConv2d(inputs, outputs, stride)
    else:
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(outputs), *([act()] if act else [])]


class SqueezeExcite(nn.Module):
    """Channel attention: (B, C, H, W) scaled per channel by a gate in (0, 1); a quarter of the channels inside."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = make_divisible(channels / 4)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, hidden, 1),
            nn.ReLU(),
            nn.Conv2d(hidden, channels, 1),
            nn.Hardsigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        scaled: Tensor = x * self.gate(x)
        return scaled


class MBConv(nn.Module):
    """Expand 1x1, depthwise k x k, project 1x1; shortcut where the shape is kept.

    hidden: channels inside, default the inputs times the expansion; where they equal the inputs, there is no first 1x1.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        expansion: int,
        stride: int,
        se: bool = False,
        act: Callable[[], nn.Module] = nn.ReLU6,
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        hidden = inputs * expansion if hidden is None else hidden
        self.body = nn.Sequential(
            *(conv_norm_act(inputs, hidden, 1, act=act) if hidden != inputs else []),
            *conv_norm_act(hidden, hidden, kernel, stride, depthwise=True, act=act),
            *([SqueezeExcite(hidden)] if se else []),
            *conv_norm_act(hidden, outputs, 1, act=None),
        )
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return x + y if self.shortcut else y


def skip(inputs: int, outputs: int, stride: int, act: Callable[[], nn.Module] = nn.ReLU6) -> nn.Module:
    """Identity where the shape is kept, otherwise a strided 1x1 convolution with norm and activation."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(*conv_norm_act(inputs, outputs, 1, stride, act=act))
