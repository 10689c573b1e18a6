"""Residual blocks, alone and as super-kernels whose narrower forms are their first channels.

    basic       3x3 to the width, 3x3 (K. He et al., CVPR 2016)
    bottleneck  1x1 to a quarter of the width, 3x3, 1x1 to the width
    inverted    1x1 to six times the inputs, depthwise 3x3, 1x1 to the width, no activation behind (MobileNetV2)

The first block of a stage brings its input to the new shape by a 1x1 convolution with norm beside the others, always,
so that costs are polynomials in the widths; the first `inverted` one has nothing beside it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from sartor.layers.depthwise import depthwise
from sartor.layers.elastic import SlicedNorm
from sartor.layers.mbconv import conv_norm_act
from sartor.layers.pointwise import pointwise

BLOCKS = ("basic", "bottleneck", "inverted")
EXPANSION, QUARTER = 6, 4


class Convolution(NamedTuple):
    """Shape of one; inputs and outputs may be arrays of many."""

    inputs: Any
    outputs: Any
    kernel: int
    stride: int = 1
    depthwise: bool = False


def convolutions(kind: str, inputs: Any, width: Any, stride: int) -> list[Convolution]:
    """Those of a block in a row, without what is beside them."""
    if kind == "basic":
        return [Convolution(inputs, width, 3, stride), Convolution(width, width, 3)]
    hidden = inputs * EXPANSION if kind == "inverted" else -(-width // QUARTER)
    return [
        Convolution(inputs, hidden, 1),
        Convolution(hidden, hidden, 3, stride, kind == "inverted"),
        Convolution(hidden, width, 1),
    ]


def beside(kind: str, inputs: Any, width: Any, stride: int, first: bool) -> Convolution | None:
    """The convolution beside them, if there is one."""
    return Convolution(inputs, width, 1, stride) if first and kind != "inverted" else None


class ResidualBlock(nn.Module):
    """(B, inputs, H, W) to (B, width, H / stride, W / stride); first: of its stage."""

    def __init__(self, kind: str, inputs: int, width: int, stride: int, first: bool) -> None:
        super().__init__()
        rows = [conv_norm_act(*row, act=nn.ReLU) for row in convolutions(kind, inputs, width, stride)]
        self.body = nn.Sequential(*[module for row in rows for module in row][:-1])
        project = beside(kind, inputs, width, stride, first)
        self.project = None if project is None else nn.Sequential(*conv_norm_act(*project, act=None))
        self.adds, self.act = not first or project is not None, nn.Identity() if kind == "inverted" else nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        if self.adds:
            y = y + (x if self.project is None else self.project(x))
        out: Tensor = self.act(y)
        return out


class ElasticResidual(nn.Module):
    """A block of the largest width: `run` is one of any width, or all of them by masks; `plain` copies one."""

    def __init__(self, kind: str, inputs: int, width: int, stride: int, first: bool) -> None:
        super().__init__()
        self.kind, self.stride, self.first = kind, stride, first
        rows = [*convolutions(kind, inputs, width, stride)]
        project = beside(kind, inputs, width, stride, first)
        rows += [project] if project is not None else []
        self.convs = nn.ModuleList(conv_norm_act(*row, act=None)[0] for row in rows)
        self.norms = nn.ModuleList(SlicedNorm(row.outputs) for row in rows)

    def _rows(self, inputs: int, width: int) -> list[tuple[Any, Any, Convolution]]:
        rows = convolutions(self.kind, inputs, width, self.stride)
        project = beside(self.kind, inputs, width, self.stride, self.first)
        rows += [project] if project is not None else []
        return list(zip(self.convs, self.norms, rows, strict=True))

    def run(self, x: Tensor, width: int, mask_in: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """The block of that width.

        mask, mask_in: (width,) and (channels of x,) factors of what the stage and the one before give. Masks come
        behind norm and activation: a norm that saw masked channels would scale soft ones up again, and its shift would
        bring the dead ones back.
        """
        inner = self._inner(mask_in, mask)
        body = self._rows(x.shape[1], width)
        project = body.pop() if len(body) > len(inner) + 1 else None
        y = x
        for i, (conv, norm, row) in enumerate(body):
            y = norm(_convolved(y, conv, row))
            if i < len(inner):
                y = _masked(functional.relu(y), inner[i])
        if project is not None:
            conv, norm, row = project
            y = y + norm(_convolved(x, conv, row))
        elif not self.first:
            y = y + x
        return _masked(y if self.kind == "inverted" else functional.relu(y), mask)

    def _inner(self, mask_in: Tensor | None, mask: Tensor | None) -> list[Tensor | None]:
        """Masks of what lies between the convolutions: a channel is there if it is in the block of that width."""
        if self.kind == "basic":
            return [mask]
        if self.kind == "bottleneck":
            return [None if mask is None else mask[::QUARTER]] * 2
        return [None if mask_in is None else mask_in.repeat_interleave(EXPANSION)] * 2

    @torch.no_grad()
    def plain(self, inputs: int, width: int) -> ResidualBlock:
        """The block of this size, with a copy of its weights."""
        block = ResidualBlock(self.kind, inputs, width, self.stride, self.first).to(next(self.parameters()).device)
        modules: list[Any] = [*block.body, *(block.project or [])]
        pairs = [(a, b) for a, b in pairwise(modules) if isinstance(b, nn.BatchNorm2d)]
        for (conv, norm), (own, own_norm, row) in zip(pairs, self._rows(inputs, width), strict=True):
            conv.weight.copy_(own.weight[: row.outputs, : conv.weight.shape[1]])
            own_norm.fill(norm)
        return block


def _convolved(x: Tensor, conv: Any, row: Convolution) -> Tensor:
    if row.depthwise:
        return depthwise(x, conv.weight[: row.outputs], row.stride)
    weight = conv.weight[: row.outputs, : row.inputs]
    if row.kernel == 1 and row.stride > 1:
        return pointwise(x, weight, row.stride)
    return functional.conv2d(x, weight, None, row.stride, row.kernel // 2)


def _masked(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x * mask[:, None, None]
