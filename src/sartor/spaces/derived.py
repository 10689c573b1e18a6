"""What spaces share whose architectures are those of another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sartor.core import Architecture, SearchSpace

if TYPE_CHECKING:
    from torch import Tensor


class Derived(SearchSpace):
    """The slots, inputs and references of another space; networks, or how they are deployed, are its own."""

    def __init__(self, of: SearchSpace) -> None:
        self.of, self.slots, self.optimiser = of, of.slots, of.optimiser

    def canonical(self, arch: Sequence[int]) -> Architecture:
        return self.of.canonical(arch)

    def references(self) -> Iterator[tuple[SearchSpace, Architecture]]:
        yield from self.of.references()

    def inputs(self, batch: int, arch: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        return self.of.inputs(batch, arch)
