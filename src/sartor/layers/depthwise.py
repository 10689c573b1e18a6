"""Depthwise convolution whose weight gradient is quick on a CPU also for large kernels on small maps.

oneDNN has no good kernel for those: a small image at a time it was half of a training step of networks for small
images. Here it is one product per channel of all input pixels with all output pixels, summed over the images, then a
sum over the pixel pairs of equal offset. Measured on 144 to 384 channels, 64 images, one thread, gradient of the input
included: 2.0 to 5.9 times as fast on 2x2 pixels, 2.4 to 4.7 on 4x4 and 5x5, 1.3 to 2.5 on 8x8 and 10x10 for 5x5 and 7x7
kernels; slower for 3x3 kernels on more than 2x2 pixels and on larger maps, which are left to oneDNN.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_input

LARGEST = 100  # pixels


class DepthwiseConv2d(nn.Conv2d):
    """`nn.Conv2d` with a square kernel, `same` padding, one filter per channel and no bias: the same values.

    Only the gradient of the weights is computed in another order: in training, in float32 on a CPU, on small maps.
    """

    def __init__(self, channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        kernel, pixels = self.kernel_size[0], x.shape[2] * x.shape[3]
        small = min(x.shape[2:]) < kernel or (kernel > 3 and pixels <= LARGEST)
        if small and self.training and x.device.type == "cpu" and x.dtype == torch.float32 and not _casts():
            own: Tensor = _SmallMap.apply(x, self.weight, self.stride[0])  # type: ignore[no-untyped-call]
            return own
        return super().forward(x)


def _casts() -> bool:
    return torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling()


class _SmallMap(torch.autograd.Function):
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
            to_x = conv2d_input(x.shape, weight, slope, *shape)  # type: ignore[no-untyped-call]
        if ctx.needs_input_grad[1]:
            to_weight = _to_weight(x, slope, weight.shape[-1], stride)
        return to_x, to_weight, None


def _to_weight(x: Tensor, slope: Tensor, kernel: int, stride: int) -> Tensor:
    """(C, 1, k, k) from x (B, C, H, W) and the gradient (B, C, H', W') of what it was convolved to."""
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
