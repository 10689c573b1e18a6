"""The supernet of a sub-space: the base's, entered through lifted paths. Apart, because it needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from sartor.core.task import Path, Supernet

if TYPE_CHECKING:
    from sartor.core.restricted import Restricted


class RestrictedSupernet(nn.Module):
    """Delegates to the base supernet; candidates outside the sub-space are never run."""

    def __init__(self, space: Restricted, base: Supernet) -> None:
        super().__init__()
        self.space = space
        self.base = base
        self.mixes, self.nested = getattr(base, "mixes", False), getattr(base, "nested", False)

    def forward(self, *x: Tensor, path: Path) -> Tensor:
        return self.base(*x, path=self.space.lift_path(path))

    def extract(self, arch: Sequence[int]) -> nn.Module:
        return self.base.extract(self.space.lift(arch))
