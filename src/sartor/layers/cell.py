"""Cells: small graphs whose nodes add up what comes in over their edges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor, nn

from sartor.core.task import Path

Edges = tuple[tuple[int, int], ...]


class Zero(nn.Module):
    """The absent edge."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 0.0


class Sum(nn.Module):
    """What its branches make of one input, added up."""

    def __init__(self, branches: Sequence[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = reduce(torch.add, (branch(x) for branch in self.branches))
        return total


class Cell(nn.Module):
    """A graph with one module on each edge (source, end); edges in order of their end.

    Absent edges cost nothing: nothing is computed for them, and a node that only they reach is zero.
    """

    def __init__(self, edges: Edges, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self.edges, self.on = edges, nn.ModuleList(modules)

    def forward(self, x: Tensor) -> Tensor:
        edges = [None if isinstance(module, Zero) else module for module in self.on]
        return _run(x, self.edges, edges)


class MixedCell(nn.Module):
    """A graph with several candidates on each edge, of which a path runs one."""

    def __init__(self, edges: Edges, candidates: Sequence[Sequence[nn.Module]]) -> None:
        super().__init__()
        self.edges, self.on = edges, nn.ModuleList(nn.ModuleList(c) for c in candidates)

    def chosen(self, arch: Sequence[int]) -> list[nn.Module]:
        """The module a path runs on each edge."""
        return [column[k] for column, k in zip(self.on, arch)]  # type: ignore[index]

    def forward(self, x: Tensor, path: Path) -> Tensor:
        plain = replace(path, around=None)
        edges = [partial(_choose, plain, i, column) for i, column in enumerate(self.on)]
        output = _run(x, self.edges, edges)
        # a cell is one layer: around each of its edges, an identity mapping would grow 18-fold a cell
        return output if path.around is None else path.around(len(self.on) - 1, x, output)


def _choose(path: Path, slot: int, column: Any, x: Tensor) -> Tensor:
    return path.run(slot, x, column)


def _run(x: Tensor, edges: Edges, operators: Sequence[Callable[[Tensor], Tensor] | None]) -> Tensor:
    """Add up what arrives at each node; None on an edge: nothing does."""
    nodes = [x]
    for node in range(1, edges[-1][1] + 1):
        here = [(source, run) for (source, end), run in zip(edges, operators) if end == node and run is not None]
        arriving = [run(nodes[source]) for source, run in here]
        nodes.append(reduce(torch.add, arriving) if arriving else x * 0.0)
    return nodes[-1]


# ---------------------------------------------------------------------- pieces of NAS-Bench-201


def relu_conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Module:
    """ReLU, convolution with `same` padding, batch norm."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(nn.ReLU(), conv, nn.BatchNorm2d(outputs))


def operator(name: str, width: int) -> nn.Module:
    """An edge's operator, by its name in the benchmark; shape and channels stay."""
    if name == "none":
        return Zero()
    if name == "skip_connect":
        return nn.Identity()
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    return relu_conv_norm(width, width, {"nor_conv_1x1": 1, "nor_conv_3x3": 3}[name])


def stem(channels: int, width: int) -> nn.Module:
    """3x3 convolution and batch norm, no activation."""
    return nn.Sequential(nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))


def reduction(width: int) -> nn.Module:
    """Residual block that halves the resolution and doubles the channels; no activation after the sum."""
    deep = nn.Sequential(relu_conv_norm(width, 2 * width, 3, stride=2), relu_conv_norm(2 * width, 2 * width, 3))
    pool = nn.AvgPool2d(2, stride=2, ceil_mode=True)
    return Sum([deep, nn.Sequential(pool, nn.Conv2d(width, 2 * width, 1, bias=False))])


def head(width: int, classes: int) -> nn.Module:
    """Batch norm, ReLU, global average, linear."""
    return nn.Sequential(
        nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)
    )
