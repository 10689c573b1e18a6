"""Networks as they are trained: what folding batch norms into convolutions is worth (thesis, Table 3.2)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sartor.core import Json, Part
from sartor.spaces.derived import Derived

if TYPE_CHECKING:
    from torch import nn


class Unfolded(Derived):
    """The networks of another space, deployed as they are."""

    def spec(self) -> dict[str, Json]:
        return {"space": "unfolded", "of": self.of.spec()}

    def key(self, arch: Sequence[int]) -> str:
        return f"{self.of.key(arch)} unfolded"

    def network(self, arch: Sequence[int]) -> nn.Module:
        return self.of.network(arch)

    def parts(self, arch: Sequence[int]) -> list[Part] | None:
        parts = self.of.parts(arch)
        return None if parts is None else [replace(part, key=f"{part.key} unfolded") for part in parts]

    def assemble(self, modules: Sequence[nn.Module]) -> nn.Module:
        return self.of.assemble(modules)

    def counted(self, arch: Sequence[int]) -> list[Part] | None:
        return self.of.counted(arch)

    def deploy(self, network: nn.Module) -> nn.Module:
        return copy.deepcopy(network).eval()
