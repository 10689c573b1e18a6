"""Fakes that prove the core: a ragged, conditional space, a plain grid, and costs of every form on them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sartor.core import Architecture, F, Json, Part, Path, Score, SearchSpace, Slot, Terms, TermScore, UserError, metric
from sartor.spaces import SPACES


def _operators(channels: int) -> list[Any]:
    return [
        lambda: nn.Sequential(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels), nn.ReLU()),
        lambda: nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)),
        lambda: nn.Identity(),
        lambda: nn.Conv2d(channels, channels, 5, padding=2, groups=channels),
    ]


class Ragged(SearchSpace):
    """Depth 1 to 3, operators with 3, 4 and 2 candidates, and a last operator that hangs on the one before it."""

    local_parts = True
    slots = (
        Slot("depth", ("1", "2", "3")),
        Slot("first", ("a", "b", "c")),
        Slot("second", ("a", "b", "c", "d"), np.array([[1.0, 1], [3, 1], [0, 0], [5, 0]]), (0, frozenset({1, 2}))),
        Slot("third", ("a", "b"), when=(0, frozenset({2}))),
        Slot("fourth", ("a", "b"), when=(3, frozenset({1}))),
    )

    def __init__(self, channels: int = 4) -> None:
        self.channels = channels

    def spec(self) -> dict[str, Json]:
        return {"space": "fake-ragged", "channels": self.channels}

    def inputs(self, batch: int, arch: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        return (torch.randn(batch, 3, 8, 8),)

    def parts(self, arch: Sequence[int]) -> list[Part]:
        arch, c = self.canonical(arch), self.channels
        out = [Part(f"stem-{c}", None, lambda: nn.Conv2d(3, c, 3, padding=1), ((3, 8, 8),))]
        for i, on in enumerate(self.active(arch)):
            if i > 0 and on:
                make = _operators(c)[arch[i]]
                out.append(Part(f"op{arch[i]}-{c}", i, make, ((c, 8, 8),)))
        head = lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 5))  # noqa: E731
        return [*out, Part(f"head-{c}", None, head, ((c, 8, 8),))]

    def assemble(self, modules: Sequence[nn.Module]) -> nn.Module:
        return nn.Sequential(*modules)

    def network(self, arch: Sequence[int]) -> nn.Module:
        return self.assemble([p.make() for p in self.parts(arch)])

    def supernet(self) -> RaggedSupernet:
        return RaggedSupernet(self)


class RaggedSupernet(nn.Module):
    """Every operator of every slot once."""

    def __init__(self, space: Ragged) -> None:
        super().__init__()
        self.space = space
        parts = space.parts((0,) * len(space.slots))
        self.stem, self.head = parts[0].make(), parts[-1].make()
        self.options = nn.ModuleList(
            nn.ModuleList(_operators(space.channels)[k]() for k in range(len(s) if i else 0))
            for i, s in enumerate(space.slots)
        )

    def _chosen(self, arch: Architecture) -> list[tuple[int, nn.Module]]:
        options: Any = self.options
        return [(i, options[i][arch[i]]) for i, on in enumerate(self.space.active(arch)) if i > 0 and on]

    def forward(self, x: Tensor, path: Path) -> Tensor:
        x = self.stem(x)
        for i, operator in self._chosen(path.index):
            x = operator(x)
            if path.gates is not None:
                x = x * path.gates[i][path.index[i]]
        out: Tensor = self.head(x)
        return out if path.gates is None else out * path.gates[0][path.index[0]]

    def extract(self, arch: Sequence[int]) -> nn.Module:
        chosen = [m for _, m in self._chosen(self.space.canonical(arch))]
        return self.space.assemble(copy.deepcopy([self.stem, *chosen, self.head]))


class Grid(SearchSpace):
    """`slots` unconditional slots of `candidates` each: the plain 21 x 7 shape. Its networks are one linear layer."""

    def __init__(self, slots: int = 4, candidates: int = 3) -> None:
        self.shape = slots, candidates
        self.slots = tuple(Slot(f"s{i}", tuple(f"o{k}" for k in range(candidates))) for i in range(slots))

    def spec(self) -> dict[str, Json]:
        return {"space": "fake-grid", "slots": self.shape[0], "candidates": self.shape[1]}

    def inputs(self, batch: int, arch: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        return (torch.randn(batch, 4),)

    def network(self, arch: Sequence[int]) -> nn.Module:
        return nn.Sequential(nn.Linear(4, 1 + sum(self.canonical(arch))), nn.ReLU())


class Forest(SearchSpace):
    """Any slots, given by hand; for tests of the algebra, it builds nothing."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self.slots = tuple(slots)

    def spec(self) -> dict[str, Json]:
        shape = [[len(s), None if s.when is None else [s.when[0], sorted(s.when[1])]] for s in self.slots]
        return {"space": "fake-forest", "shape": shape}

    def inputs(self, batch: int, arch: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        return (torch.zeros(batch, 1),)

    def network(self, arch: Sequence[int]) -> nn.Module:
        raise UserError("this space builds no networks.")


SPACES.register("fake-ragged", Ragged)
SPACES.register("fake-grid", Grid)

LATENCY = metric("latency_ms")


def additive(space: SearchSpace, seed: int = 0, low: float = 0.1, high: float = 2.0) -> TermScore:
    """Independent cost of every candidate."""
    rng = np.random.default_rng(seed)
    return TermScore(space, LATENCY, Terms(1.0, tuple(rng.uniform(low, high, len(s)) for s in space.slots)))


def pairwise(space: SearchSpace, seed: int = 0) -> TermScore:
    """Costs of candidates and of neighbours, as of channels along a chain."""
    rng = np.random.default_rng(seed)
    sizes = [len(s) for s in space.slots]
    pair = {(i, i + 1): rng.uniform(0, 1, (sizes[i], sizes[i + 1])) for i in range(len(sizes) - 1)}
    return TermScore(space, LATENCY, Terms(0.5, tuple(rng.uniform(0.1, 1, n) for n in sizes), pair))


def ratio(space: SearchSpace, seed: int = 0) -> TermScore:
    """A pairwise numerator over a positive additive denominator."""
    top, under = pairwise(space, seed).terms(), additive(space, seed + 1).terms()
    return TermScore(space, LATENCY, Terms(top.const, top.unary, top.pair, under))


class Curved(Score):
    """A cost without terms: a bend on top of an additive cost, and pairs far apart."""

    def __init__(self, space: SearchSpace, seed: int = 0, bend: float = 0.1) -> None:
        self.space, self.metric = space, LATENCY
        self._additive, self._pairwise, self._bend = additive(space, seed), pairwise(space, seed + 1), bend

    def __call__(self, archs: Sequence[Sequence[int]]) -> F:
        plain = self._additive(archs)
        return plain + self._bend * self._pairwise(archs) + self._bend * np.sin(3.0 * plain)
