"""NAS-Bench-201: one cell of six edges, repeated; every network's accuracy and cost are in public tables.

X. Dong, Y. Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search", ICLR 2020. Node 0 is
the cell's input; node t adds up one operator on each edge from an earlier node; node 3 is the output.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from sartor.core import Architecture, Json, Part, Slot, Terms, UserError
from sartor.spaces.chain import ChainSpace
from sartor.spaces.complexity import count_part

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sartor.core.task import Supernet

OPERATORS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
STAGES = 3


class NASBench201(ChainSpace):
    """Slots: the operators on the six edges of the cell, shared by all cells; 5^6 = 15,625 networks.

    width: channels of the first of three stages, doubled at each of the next (published: 16); cells: in a stage
    (published: 5); classes; resolution and channels: of the input images. Other values keep the slots.
    """

    def __init__(
        self, *, width: int = 16, cells: int = 5, classes: int = 10, resolution: int = 32, channels: int = 3
    ) -> None:
        self.width, self.cells, self.classes = width, cells, classes
        self.resolution, self.channels = resolution, channels
        for name, least in (("width", 1), ("cells", 1), ("classes", 2), ("resolution", 4), ("channels", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UserError(
                    f"nas-bench-201 option {name}={value!r} is out of range; give a whole number from {least} up."
                )
        self.slots = tuple(Slot(f"{source}->{end}", OPERATORS) for source, end in EDGES)

    def spec(self) -> dict[str, Json]:
        return {
            "space": "nas-bench-201",
            "width": self.width,
            "cells": self.cells,
            "classes": self.classes,
            "resolution": self.resolution,
            "channels": self.channels,
        }

    def scaled(self, width: float) -> NASBench201:
        options = {k: v for k, v in self.spec().items() if k not in ("space", "width")}
        return NASBench201(**options, width=max(1, round(self.width * width)))

    def inputs(self, batch: int, arch: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        import torch

        return (torch.randn(batch, self.channels, self.resolution, self.resolution),)

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        return tuple((i, j) for i, (_, end) in enumerate(EDGES) for j, (source, _) in enumerate(EDGES) if end == source)

    def executed(self, gates: Sequence[Any]) -> list[Any]:
        """Operators other than `none` whose result reaches node 3; relaxed: as if edges were chosen independently."""
        used: list[Any] = [0.0, 0.0, 0.0, 1.0]
        for node in (2, 1):
            idle = 1.0
            for gate, (source, end) in zip(gates, EDGES):
                if source == node:
                    idle = idle * (1.0 - (1.0 - gate[..., :1]) * used[end])
            used[node] = 1.0 - idle
        return [gate[..., 1:] * used[end] for gate, (_, end) in zip(gates, EDGES)]

    # ------------------------------------------------------------------ the string of the benchmark's files

    def string(self, arch: Sequence[int]) -> str:
        """`|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`: the name of an architecture in the published tables."""
        arch, nodes = self.canonical(arch), []
        for node in range(1, 4):
            into = [(i, source) for i, (source, end) in enumerate(EDGES) if end == node]
            nodes.append("|" + "".join(f"{OPERATORS[arch[i]]}~{source}|" for i, source in into))
        return "+".join(nodes)

    def parse(self, text: str) -> Architecture:
        """The architecture of such a string. Raises UserError where it is none."""
        arch = [OPERATORS.index(op) for op in re.findall(r"\|?([a-z0-9_]+)~\d\|", text) if op in OPERATORS]
        if len(arch) != len(EDGES) or self.string(arch) != text:
            raise UserError(f"{text!r} is no NAS-Bench-201 cell; write it like {self.string((0,) * len(EDGES))}.")
        return tuple(arch)

    # ------------------------------------------------------------------ networks

    def parts(self, arch: Sequence[int]) -> list[Part]:
        from sartor.layers.cell import Cell, operator

        ops = tuple(OPERATORS[k] for k in self.canonical(arch))
        return self._chain("-".join(ops), lambda width: Cell(EDGES, [operator(op, width) for op in ops]))

    def _chain(self, key: str, cell: Callable[[int], nn.Module]) -> list[Part]:
        """Stem, three stages of cells with a reduction between them, head."""
        from sartor.layers.cell import head, reduction, stem

        width, size = self.width, self.resolution
        chain = [
            Part(
                f"stem-{self.channels}-{width}",
                None,
                partial(stem, self.channels, width),
                ((self.channels, size, size),),
            )
        ]
        for stage in range(STAGES):
            if stage:
                chain.append(Part(f"reduce-{width}", None, partial(reduction, width), ((width, size, size),)))
                width, size = 2 * width, -(-size // 2)
            chain += [Part(f"cell-{width}-{key}", None, partial(cell, width), ((width, size, size),))] * self.cells
        last = (width, size, size)
        return [*chain, Part(f"head-{width}-{self.classes}", None, partial(head, width, self.classes), (last,))]

    def count_terms(self, name: str) -> Terms:
        """Exact, though a cell is one part: it runs the operator of each edge, whatever becomes of the result."""
        none = (0,) * (len(EDGES) - 1)
        costs = [sum(count_part(part)[name] for part in self.parts((*none, k))) for k in range(len(OPERATORS))]
        return Terms(costs[0], (np.array(costs) - costs[0],) * len(EDGES))

    @property
    def has_supernet(self) -> bool:
        return True

    def supernet(self) -> Supernet:
        from sartor.layers.cell import MixedCell, operator
        from sartor.supernet import CellSupernet

        chain = self._chain("*", lambda w: MixedCell(EDGES, [[operator(op, w) for op in OPERATORS] for _ in EDGES]))
        return CellSupernet(self, [part.make() for part in chain])
