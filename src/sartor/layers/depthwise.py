"""Depthwise convolution whose weight gradient is quick on a CPU also for large kernels.

oneDNN has a quick kernel for filters up to three wide, and none for wider ones: it was half of a training step of
networks for small images. Without a stride a wide filter is cut into strips of three here. On maps that are smaller
than the filter, and small ones with a stride, it is one product per channel of all input pixels with all output pixels,
summed over the images, then a sum over the pixel pairs of equal offset. Measured on 64 images, one thread: strips are
2.0 to 2.4 times as fast on 144 channels of 16x16 to 32x32 pixels, 4 to 6 times on 48 of 16x16 and on 5x5 to 8x8;
products, gradient of the input included, 2.0 to 5.9 times on 2x2 pixels and 2.4 to 4.7 on 4x4. What is left (3x3, and
strides on larger maps) is oneDNN's.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_input, conv2d_weight

LARGEST = 100  # pixels, for products
STRIP = 3


class DepthwiseConv2d(nn.Conv2d):
    """`nn.Conv2d` with a square kernel, `same` padding, one filter per channel and no bias: the same values.

    Only the gradient of the weights is computed in another order: in training, in float32 on a CPU, and not where the
    padding was changed since.
    """

    def __init__(self, channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        same = self.padding == (self.kernel_size[0] // 2,) * 2
        return depthwise(x, self.weight, self.stride[0]) if self.training and same else super().forward(x)


def depthwise(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """(B, C, H', W') from x (B, C, H, W) and weight (C, 1, k, k), k odd, with `same` padding."""
    kernel, pixels = weight.shape[-1], x.shape[2] * x.shape[3]
    own = min(x.shape[2:]) < kernel or (kernel > STRIP and (stride == 1 or pixels <= LARGEST))
    if own and x.device.type == "cpu" and x.dtype == torch.float32 and not _casts():
        out: Tensor = _Depthwise.apply(x, weight, stride)  # type: ignore[no-untyped-call]
        return out
    return functional.conv2d(x, weight, None, stride, kernel // 2, 1, len(weight))


def _casts() -> bool:
    return torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling()


class _Depthwise(torch.autograd.Function):
    """Differentiable twice: the backward pass is made of differentiable operations."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return functional.conv2d(x, weight, None, stride, weight.shape[-1] // 2, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (x, weight), (slope,), stride = ctx.saved_tensors, slopes, ctx.stride
        to_x = to_weight = None
        if ctx.needs_input_grad[0]:
            kernel = weight.shape[-1]
            shape = (stride, kernel // 2, 1, len(weight))
            to_x = conv2d_input(x.shape, weight, slope, *shape)
        if ctx.needs_input_grad[1]:
            strips = stride == 1 and min(x.shape[2:]) >= weight.shape[-1]
            to_weight = (_by_strips if strips else _by_products)(x, slope, weight.shape[-1], stride)
        return to_x, to_weight, None


def _by_strips(x: Tensor, slope: Tensor, kernel: int, stride: int) -> Tensor:
    """(C, 1, k, k) from x (B, C, H, W) and the gradient (B, C, H', W') of what it was convolved to."""
    pad, reach, channels = kernel // 2, (slope.shape[3] - 1) * stride, x.shape[1]
    padded, strips = functional.pad(x, (pad, pad, 0, 0)), []
    for first in range(0, kernel, STRIP):
        wide = min(STRIP, kernel - first)
        part, shape = padded[..., first : first + reach + wide], (channels, 1, kernel, wide)
        strips.append(conv2d_weight(part, shape, slope, stride, (pad, 0), 1, channels))
    return torch.cat(strips, dim=3)


def _by_products(x: Tensor, slope: Tensor, kernel: int, stride: int) -> Tensor:
    """The same."""
    images, channels, height, width = x.shape
    # contiguous: `bmm` copies whatever is not, channel by channel
    pixels = x.permute(1, 2, 3, 0).reshape(channels, height * width, images).contiguous()
    arrived = slope.permute(1, 0, 2, 3).reshape(channels, images, -1).contiguous()
    pairs = torch.bmm(pixels, arrived).reshape(channels, -1)
    return (pairs @ _offsets(height, width, kernel, stride).to(pairs)).reshape(channels, 1, kernel, kernel)


@lru_cache(maxsize=64)
def _offsets(height: int, width: int, kernel: int, stride: int) -> Tensor:
    """(input pixels x output pixels, kernel entries): 1 where an entry of the kernel joins the two pixels."""

    def joined(size: int) -> Tensor:  # (size, outputs, kernel)
        outputs = (size + 2 * (kernel // 2) - kernel) // stride + 1
        at = torch.arange(outputs)[:, None] * stride + torch.arange(kernel) - kernel // 2
        return (torch.arange(size)[:, None, None] == at).float()

    both = torch.einsum("yoi,xpj->yxopij", joined(height), joined(width))
    return both.reshape(-1, kernel * kernel)
