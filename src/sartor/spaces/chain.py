"""What spaces of chains share: the network is its parts in a row, batch norms fold, a slot is a part."""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sartor.core import Part, SearchSpace

if TYPE_CHECKING:
    from torch import nn

    from sartor.core.task import Supernet


class ChainSpace(SearchSpace):
    """A space whose networks are `nn.Sequential` chains of the parts that `parts` gives."""

    @abstractmethod
    def parts(self, arch: Sequence[int]) -> list[Part]:
        """The network as a chain of at least two pieces, the first and the last of no slot."""

    def assemble(self, modules: Sequence[nn.Module]) -> nn.Module:
        from torch import nn

        names = ("stem", *(f"layer{i}" for i in range(len(modules) - 2)), "head")
        return nn.Sequential(OrderedDict(zip(names, modules, strict=True)))

    def network(self, arch: Sequence[int]) -> nn.Module:
        return self.assemble([part.make() for part in self.parts(arch)])

    def deploy(self, network: nn.Module) -> nn.Module:
        from sartor.reparam.fold import deployed

        return deployed(network)

    @property
    def has_supernet(self) -> bool:
        return self.local_parts

    def supernet(self) -> Supernet:
        from sartor.supernet import ChainSupernet

        return ChainSupernet(self)
