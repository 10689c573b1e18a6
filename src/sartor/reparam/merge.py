"""Exact linear algebra of convolutions: what several in a row, or side by side, are as one.

X. Luo et al., "Domino", thesis 5.2 and 5.3.5, Eq. 5.1, 5.2, 5.7, 5.8. Equation 5.8 indexes the taps of the first kernel
by the second one's centre and is one tap off where sizes differ; 5.2 and 5.7 drop an order and a bias. What stands here
is derived anew, for cross-correlation and weights (out, in, kh, kw).

A merged convolution pads its input, whereas those that it replaces pad what is between them, too. The thesis says that
the output does not change; at the border it does, unless nothing between is padded (`reparam.border` sees to that).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from sartor.core import UserError

Pair = tuple[int, int]


@dataclass(frozen=True)
class Kernel:
    """A convolution as numbers, in double precision.

    weight: (out, in, kh, kw), dense; bias: (out,); stride, padding: (vertical, horizontal); groups: the weight is zero
    outside of that many blocks.
    """

    weight: Tensor
    bias: Tensor
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    groups: int = 1

    @property
    def size(self) -> Pair:
        return self.weight.shape[2], self.weight.shape[3]

    def conv(self, like: Tensor) -> nn.Conv2d:
        """As a layer with a bias, of the type and on the device of `like`."""
        out, inputs = self.weight.shape[:2]
        layer = nn.Conv2d(inputs, out, self.size, self.stride, self.padding, groups=self.groups).to(like)
        assert layer.bias is not None
        with torch.no_grad():
            blocks = self.weight.reshape(self.groups, out // self.groups, self.groups, -1, *self.size)
            layer.weight.copy_(torch.cat([blocks[i, :, i] for i in range(self.groups)]))
            layer.bias.copy_(self.bias)
        return layer


def kernel_of(conv: nn.Conv2d) -> Kernel:
    """What a layer computes. Raises UserError as `padding_of` does."""
    weight, groups = conv.weight.detach().double(), conv.groups
    wide = weight.new_zeros(groups, conv.out_channels // groups, groups, conv.in_channels // groups, *weight.shape[2:])
    for i, block in enumerate(weight.chunk(groups)):
        wide[i, :, i] = block
    reach = [d * (k - 1) + 1 for d, k in zip(conv.dilation, conv.kernel_size)]
    spread = weight.new_zeros(conv.out_channels, conv.in_channels, *reach)
    spread[:, :, :: conv.dilation[0], :: conv.dilation[1]] = wide.flatten(2, 3).flatten(0, 1)
    bias = weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias.detach().double()
    return Kernel(spread, bias, conv.stride, padding_of(conv), groups)  # type: ignore[arg-type]


def padding_of(conv: nn.Conv2d) -> Pair:
    """By how many zeros. Raises UserError where a layer pads with anything else, or more on one side than the other."""
    reach = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size)]
    if conv.padding_mode != "zeros" or (conv.padding == "same" and any(r % 2 for r in reach)):
        raise UserError(f"{conv} does not pad with as many zeros on both sides; only what does can be merged.")
    if isinstance(conv.padding, str):
        return (reach[0] // 2, reach[1] // 2) if conv.padding == "same" else (0, 0)
    vertical, horizontal = conv.padding
    return vertical, horizontal


def affine_of(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """(scale, shift), each (channels,), of a batch norm in evaluation: y = scale * x + shift."""
    if norm.running_mean is None or norm.running_var is None:
        raise UserError(f"{norm} keeps no running statistics; what it will do to other data is not known.")
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    scale = (variance + norm.eps).rsqrt()
    if not norm.affine:
        return scale, -mean * scale
    scale = scale * norm.weight.detach().double()
    return scale, norm.bias.detach().double() - mean * scale


def identity(like: Tensor) -> Kernel:
    """What changes nothing, as a 1x1 convolution of each channel alone. like: (channels,)"""
    return Kernel(torch.eye(len(like), device=like.device, dtype=torch.float64)[:, :, None, None],
                  torch.zeros(len(like), device=like.device, dtype=torch.float64), groups=len(like))  # fmt: skip


def in_row(first: Kernel, second: Kernel) -> Kernel:
    """`first`, then `second`.

    W[o, i, u, v] = sum over m, q, r of W2[o, m, q, r] W1[m, i, u - s1 q, v - s1 r]; b = b2 + (sum of W2's taps) b1.
    Exact everywhere if `second` does not pad; else away from the border.
    """
    weight = functional.conv_transpose2d(
        first.weight.transpose(0, 1), second.weight.transpose(0, 1), dilation=first.stride
    ).transpose(0, 1)
    (s, t), (u, v) = first.stride, second.stride
    (p, q), (k, m) = first.padding, second.padding
    bias = second.bias + second.weight.sum((2, 3)) @ first.bias
    return Kernel(weight, bias, (s * u, t * v), (p + s * k, q + t * m), math.gcd(first.groups, second.groups))


def side_by_side(one: Kernel, other: Kernel) -> Kernel:
    """Their sum, exact. Raises UserError where they do not give maps of one size from every map.

    The smaller kernel sits where both see the same pixels: a 1x1 of stride 2 at the centre of a padded 3x3 of stride 2.
    """
    ahead = [p - q for p, q in zip(one.padding, other.padding)]
    if one.stride != other.stride or any(k - m != 2 * a for k, m, a in zip(one.size, other.size, ahead)):
        raise UserError(
            f"convolutions of {one.size} stride {one.stride} padding {one.padding} and {other.size} stride "
            f"{other.stride} padding {other.padding} do not look at the same pixels; they cannot be added up to one."
        )
    wide = [functional.pad(k.weight, [max(s * a, 0) for a in reversed(ahead) for _ in range(2)])
            for k, s in ((one, -1), (other, 1))]  # fmt: skip
    padding = (max(one.padding[0], other.padding[0]), max(one.padding[1], other.padding[1]))
    groups = math.gcd(one.groups, other.groups)
    return Kernel(wide[0] + wide[1], one.bias + other.bias, one.stride, padding, groups)


def scaled(kernel: Kernel, scale: Tensor, shift: Tensor) -> Kernel:
    """`kernel`, then y = scale * x + shift."""
    return replace(kernel, weight=kernel.weight * scale[:, None, None, None], bias=kernel.bias * scale + shift)
