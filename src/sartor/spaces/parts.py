"""Every different part of a space as a network of its own: what an operator lookup table measures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sartor.core import Architecture, Json, Part, SearchSpace, Slot
from sartor.core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn


class Parts(SearchSpace):
    """One slot whose candidates are the parts of `base`.

    arch: parts of that network alone; None: of all networks, which must depend on one choice each.
    """

    def __init__(self, base: SearchSpace, arch: Sequence[int] | None = None) -> None:
        if arch is None and not base.local_parts:
            raise UserError(f"parts of space {base.name!r} depend on several choices; a lookup table needs one each.")
        self.base, self.arch = base, None if arch is None else base.canonical(arch)
        first = (0,) * len(base.slots) if self.arch is None else self.arch
        chains = [base.parts(first)]
        if self.arch is None:
            for i, slot in enumerate(base.slots):
                chains += [base.parts((*first[:i], k, *first[i + 1 :])) for k in range(1, len(slot))]
        if chains[0] is None:
            raise UserError(f"networks of space {base.name!r} are no chains of parts; measure them whole.")
        self._parts = list({part.key: part for chain in chains for part in chain or ()}.values())
        self.slots = (Slot("part", tuple(part.key for part in self._parts)),)

    def references(self) -> Iterator[tuple[SearchSpace, Architecture]]:
        yield from self.base.references()

    def _part(self, arch: Sequence[int]) -> Part:
        return self._parts[self.canonical(arch)[0]]

    def spec(self) -> dict[str, Json]:
        return {"space": "parts", "of": self.base.spec(), "arch": None if self.arch is None else list(self.arch)}

    def parts(self, arch: Sequence[int]) -> list[Part]:
        part = self._part(arch)
        return [Part(part.key, 0, part.make, part.inputs)]

    def inputs(self, batch: int, arch: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        import torch

        return tuple(torch.randn(batch, *shape) for shape in self._part((0,) if arch is None else arch).inputs)

    def network(self, arch: Sequence[int]) -> nn.Module:
        return self._part(arch).make()

    def assemble(self, modules: Sequence[nn.Module]) -> nn.Module:
        (module,) = modules
        return module

    def deploy(self, network: nn.Module) -> nn.Module:
        return self.base.deploy(network)
