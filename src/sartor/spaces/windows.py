"""Spaces as architectures: every slot of a space gets a window of neighbouring candidates (Network Space Search).

What is chosen is a space, `elite`, and stands for all of its members: a cost of it is the mean over a member that is
drawn uniformly (`mean`), and a path into the supernet is that of a drawn member.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sartor.core import Architecture, F, Json, Score, SearchSpace, Slot, SoftScore, Terms, UserError, metric
from sartor.core.restricted import Restricted
from sartor.core.score import TermScore
from sartor.core.task import Path
from sartor.spaces.expanded import Expanded

if TYPE_CHECKING:
    from torch import Tensor, nn

_MEMBERS = 32


class Windows(SearchSpace):
    """Slots: those of an Expanded Space; candidates: windows of `depths` depths or `widths` widths, side by side.

    Published: 4 and 32, of 16 and 512, hence (4 x 16)^3 = 2^18 spaces of (4 x 32)^3 = 2^21 networks.
    """

    def __init__(self, of: SearchSpace, depths: int = 4, widths: int = 32) -> None:
        if isinstance(of, Restricted):
            raise UserError(f"space {of.name!r} is a window of one already; give the whole space, or a smaller one.")
        if not isinstance(of, Expanded):
            raise UserError(f"windows are of depths and widths, which space {of.name!r} has not; use expanded.")
        for name, size, most in (("depths", depths, of.depth), ("widths", widths, of.width)):
            if size < 1 or most % size:
                raise UserError(
                    f"windows of {size} {name} do not divide the {most} that space 'expanded' has; give a divisor."
                )
        self.of: Expanded = of
        self.depths, self.widths = depths, widths
        self.optimiser = of.optimiser
        self.sizes = (depths, widths) * of.stages
        self.slots = tuple(
            Slot(
                slot.name,
                tuple(_named(first, size) for first in range(0, len(slot), size)),
                features=np.stack([block.mean(0) for block in np.split(np.asarray(slot.features), len(slot) // size)]),
            )
            for slot, size in zip(of.slots, self.sizes)
        )

    def spec(self) -> dict[str, Json]:
        return {"space": "windows", "of": self.of.spec(), "depths": self.depths, "widths": self.widths}

    def inputs(self, batch: int, arch: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        return self.of.inputs(batch)

    def references(self) -> Any:
        yield from self.of.references()

    def elite(self, arch: Sequence[int]) -> SearchSpace:
        """The space that these windows are."""
        chosen = enumerate(zip(self.canonical(arch), self.sizes))
        return self.of.restrict({slot: range(k * size, (k + 1) * size) for slot, (k, size) in chosen})

    def at(self, archs: Sequence[Sequence[int]], places: npt.NDArray[np.int64]) -> list[Architecture]:
        """The networks at (n, slots) places in the windows of each, one after the other, as architectures of `of`."""
        first = np.array(self.canonicals(archs), dtype=np.int64).reshape(len(archs), 1, len(self.slots)) * self.sizes
        return self.of.canonical_rows((first + places).reshape(-1, len(self.slots)))

    def even(self, n: int) -> npt.NDArray[np.int64]:
        """(n, slots) places in the windows, the same ones each time: a Latin hypercube."""
        rng = np.random.default_rng(0)
        ranks = np.stack([rng.permutation(n) for _ in self.sizes], axis=1)
        return np.asarray((ranks + 0.5) / n * np.array(self.sizes), dtype=np.int64)

    def evenly(self, arch: Sequence[int], n: int) -> list[Architecture]:
        """`n` networks spread evenly over the windows, as architectures of `of`; the same places in every space."""
        return self.at([arch], self.even(n))

    def members(self, arch: Sequence[int], rng: np.random.Generator, n: int) -> list[Architecture]:
        """`n` networks of the windows, uniformly, as architectures of `of`."""
        return self.at([arch], rng.integers(self.sizes, size=(n, len(self.slots))))

    def middle(self, arch: Sequence[int]) -> Architecture:
        """The network in the middle of the windows, as an architecture of `of`."""
        return tuple(k * size + size // 2 for k, size in zip(self.canonical(arch), self.sizes))

    def network(self, arch: Sequence[int]) -> nn.Module:
        """The one in the middle, where one has to stand for all."""
        return self.of.network(self.middle(arch))

    def deploy(self, network: nn.Module) -> nn.Module:
        return self.of.deploy(network)

    def places(self, rng: np.random.Generator) -> list[list[int]]:
        """Per slot and window where in it a uniform member is, each drawn apart."""
        return [rng.integers(size, size=len(slot)).tolist() for slot, size in zip(self.slots, self.sizes)]

    def path(self, path: Path, places: Sequence[Sequence[int]]) -> Path:
        """That of a member into the supernet of `of`; the gate of a window is that of the candidate at its place."""
        kept = [tuple(k * size + at for k, at in enumerate(row)) for row, size in zip(places, self.sizes)]
        index = tuple(row[k] for row, k in zip(kept, path.index))
        if path.gates is None:
            return Path(index)
        gates: list[Any] = []
        for gate, some, slot in zip(path.gates, kept, self.of.slots):
            wide = gate.new_zeros(len(slot))
            wide[list(some)] = gate
            gates.append(wide)
        return Path(index, tuple(gates), kept=tuple(kept))

    @cached_property
    def spread(self) -> tuple[F, ...]:
        """Per slot (windows, candidates): the chance of each candidate in each window."""
        return tuple(
            np.kron(np.eye(len(slot)), np.full((1, size), 1 / size)) for slot, size in zip(self.slots, self.sizes)
        )


def _named(first: int, size: int) -> str:
    return f"{first + 1}" if size == 1 else f"{first + 1}-{first + size}"


def mean(score: Score, windows: Windows) -> SoftScore:
    """The mean of a score over uniform members: exact where it has terms, else over 32 members, spread evenly.

    Raises UserError for a score that can not be asked about gates.
    """
    terms = score.terms()
    if terms is not None and terms.over is None:
        spread = windows.spread
        unary = tuple(share @ row for share, row in zip(spread, terms.unary))
        pair = {(i, j): spread[i] @ table @ spread[j].T for (i, j), table in terms.pair.items()}
        return TermScore(windows, score.metric, Terms(terms.const, unary, pair))
    if not isinstance(score, SoftScore):
        raise UserError(
            f"the {score.metric.name} of a space needs a differentiable predictor; `sartor fit` makes some."
        )
    return SampledMean(score, windows)


class SampledMean(SoftScore):
    """The mean over the same members of every space: a Latin hypercube of places in the windows."""

    def __init__(self, score: SoftScore, windows: Windows) -> None:
        self.score, self.space, self.metric = score, windows, score.metric
        self.windows = windows  # the same, by its own type
        self.places = windows.even(_MEMBERS)

    def __call__(self, archs: Sequence[Sequence[int]]) -> F:
        values: F = self.score(self.windows.at(archs, self.places)).reshape(len(archs), _MEMBERS).mean(axis=1)
        return values

    def soft(self, gates: tuple[Tensor, ...]) -> Tensor:
        import torch

        index = (0,) * len(gates)
        counts = [len(gate) for gate in gates]
        rows = ([[at] * n for at, n in zip(place, counts)] for place in self.places.tolist())
        paths = [self.windows.path(Path(index, gates), row).gates for row in rows]
        return torch.stack([self.score.soft(path) for path in paths if path is not None]).mean()


class Effective(SoftScore):
    """Multiply-accumulates of the expected sizes, as FBNetV2 estimates them: below the mean, by up to a quarter.

    Raises UserError for blocks other than `basic`, whose sizes have to be whole.
    """

    def __init__(self, windows: Windows) -> None:
        if windows.of.block != "basic":
            raise UserError(f"complexity=effective is of basic blocks, these are {windows.of.block}; use mean.")
        self.space, self.of, self.metric = windows, windows.of, metric("macs")
        self.middles = [
            np.array([(k + 0.5) * size + 0.5 for k in range(len(slot))])
            for slot, size in zip(windows.slots, windows.sizes)
        ]

    def __call__(self, archs: Sequence[Sequence[int]]) -> F:
        chosen = np.array(self.space.canonicals(archs), dtype=np.int64).reshape(len(archs), len(self.middles))
        middles = [row[k] for row, k in zip(self.middles, chosen.T)]
        return np.asarray(self.of.macs(middles[::2], middles[1::2]), dtype=np.float64).reshape(len(archs))

    def soft(self, gates: tuple[Tensor, ...]) -> Tensor:
        middles = [gate @ gate.new_tensor(row) for gate, row in zip(gates, self.middles)]
        out: Tensor = self.of.macs(middles[::2], middles[1::2])
        return out
