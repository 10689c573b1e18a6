"""1x1 convolution with a stride, on the pixels that it reads alone.

oneDNN's weight gradient of it, channels last, writes past its buffer where a vector holds more channels than there are
(https://github.com/uxlfoundation/oneDNN/issues/6035): gradients are wrong, or the process dies. Networks for small
images, with widths of any number, have such convolutions.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class PointwiseConv2d(nn.Conv2d):
    """`nn.Conv2d` with a 1x1 kernel, a stride and no bias: the same values, in training computed the safe way."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return pointwise(x, self.weight, self.stride[0]) if self.training else super().forward(x)


def pointwise(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """(B, C', H', W') from x (B, C, H, W) and weight (C', C, 1, 1)."""
    return functional.conv2d(x[:, :, ::stride, ::stride], weight)
