"""Given networks side by side: what is to be compared is measured in one sitting, whatever spaces it comes from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sartor.core import Architecture, Json, Part, SearchSpace, Slot
from sartor.core.errors import UserError
from sartor.core.restricted import Restricted

if TYPE_CHECKING:
    from torch import Tensor, nn


class Networks(SearchSpace):
    """One slot whose candidates are networks, each an architecture of a space of its own.

    members: at least one (space, architecture). Raises UserError when their spaces deploy networks in different ways.
    """

    def __init__(self, members: Sequence[tuple[SearchSpace, Sequence[int]]]) -> None:
        self.members: list[tuple[SearchSpace, Architecture]] = [(s, s.canonical(arch)) for s, arch in members]
        if len({_deploys(space) for space, _ in self.members}) != 1:
            names = ", ".join(sorted({space.name for space, _ in self.members}))
            raise UserError(f"networks of {names or 'no space'} cannot be measured in one go; measure each kind alone.")
        self.optimiser = self.members[0][0].optimiser
        self.slots = (Slot("network", tuple(f"{i}" for i in range(len(self.members)))),)

    def _member(self, arch: Sequence[int]) -> tuple[SearchSpace, Architecture]:
        return self.members[self.canonical(arch)[0]]

    def spec(self) -> dict[str, Json]:
        return {"space": "networks", "members": [space.to_json(arch) for space, arch in self.members]}

    def key(self, arch: Sequence[int]) -> str:
        space, same = self._member(arch)
        return space.key(same)

    def references(self) -> Iterator[tuple[SearchSpace, Architecture]]:
        yield from self.members[0][0].references()

    def inputs(self, batch: int, arch: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        space, same = self._member((0,) if arch is None else arch)
        return space.inputs(batch, same)

    def network(self, arch: Sequence[int]) -> nn.Module:
        space, same = self._member(arch)
        return space.network(same)

    def parts(self, arch: Sequence[int]) -> list[Part] | None:
        space, same = self._member(arch)
        return space.parts(same)

    def counted(self, arch: Sequence[int]) -> list[Part] | None:
        space, same = self._member(arch)
        return space.counted(same)

    def deploy(self, network: nn.Module) -> nn.Module:
        return self.members[0][0].deploy(network)


def _deploys(space: SearchSpace) -> object:
    return _deploys(space.base) if isinstance(space, Restricted) else type(space).deploy
