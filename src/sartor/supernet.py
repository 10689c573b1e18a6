"""Weight sharing: every candidate once, one path at a time.

Batch norms of supernets have no scale and shift: shared ones would be trained by all paths at once (LightNAS code).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sartor.core import SearchSpace
from sartor.core.errors import UserError
from sartor.core.task import Path
from sartor.layers.cell import MixedCell


class ChainSupernet(nn.Module):
    """All candidates of all slots of a space whose networks are chains with one part per slot.

    Only the modules on the path run, so that a step costs the time and the activations of one network.
    """

    mixes = True

    def __init__(self, space: SearchSpace) -> None:
        super().__init__()
        if not space.local_parts:
            raise UserError(f"space {space.name!r} has no part per slot; give it a supernet of its own.")
        self.space = space
        first = (0,) * len(space.slots)
        layout = _parts(space, first)
        self.slots = [part.slot for part in layout]
        self.columns = nn.ModuleList()
        for position, part in enumerate(layout):
            column = nn.ModuleList([part.make()])
            if part.slot is not None:
                for k in range(1, len(space.slots[part.slot])):
                    arch = (*first[: part.slot], k, *first[part.slot + 1 :])
                    column.append(_parts(space, arch)[position].make())
            self.columns.append(column)
        _without_affine(self)

    def modules_on(self, arch: Sequence[int]) -> list[nn.Module]:
        """The modules a path runs, in order."""
        return [c[0 if i is None else arch[i]] for i, c in zip(self.slots, self.columns)]  # type: ignore[index]

    def forward(self, *x: Tensor, path: Path) -> Tensor:
        (y,) = x
        for slot, column in zip(self.slots, self.columns):
            y = column[0](y) if slot is None else path.run(slot, y, column)  # type: ignore[index,arg-type]
        return y

    def extract(self, arch: Sequence[int]) -> nn.Module:
        parts = _parts(self.space, arch)
        copies = [part.make() for part in parts]
        for new, old in zip(copies, self.modules_on(self.space.canonical(arch))):
            new.load_state_dict(old.state_dict(), strict=False)  # scale and shift stay 1 and 0
        return self.space.assemble(copies).to(next(self.parameters()).device)


class SharingSupernet(ChainSupernet):
    """A chain in which all candidates of a slot are made of the same weights; they begin as they are given.

    slots: that of each column, None if fixed; columns: candidates, which may share tensors. Their batch norms keep
    scale and shift, and share statistics where they are shared.
    """

    def __init__(self, space: SearchSpace, slots: Sequence[int | None], columns: Sequence[Sequence[nn.Module]]) -> None:
        nn.Module.__init__(self)
        self.space, self.slots = space, list(slots)
        self.columns = nn.ModuleList(nn.ModuleList(column) for column in columns)

    def extract(self, arch: Sequence[int]) -> nn.Module:
        return self.space.assemble(copy.deepcopy(self.modules_on(self.space.canonical(arch))))


class CellSupernet(nn.Module):
    """A chain in which the mixed cells hold all candidates and every cell takes the same path."""

    mixes = True

    def __init__(self, space: SearchSpace, chain: Sequence[nn.Module]) -> None:
        super().__init__()
        self.space, self.chain = space, nn.ModuleList(chain)
        _without_affine(self)

    def forward(self, *x: Tensor, path: Path) -> Tensor:
        (y,) = x
        for module in self.chain:
            y = module(y, path) if isinstance(module, MixedCell) else module(y)
        return y

    def extract(self, arch: Sequence[int]) -> nn.Module:
        arch = self.space.canonical(arch)
        network = self.space.network(arch)
        for new, old in zip(network.children(), self.chain):
            pairs = zip(new.on, old.chosen(arch)) if isinstance(old, MixedCell) else [(new, old)]  # type: ignore[arg-type]
            for target, source in pairs:
                target.load_state_dict(source.state_dict(), strict=False)  # scale and shift stay 1 and 0
        return network.to(next(self.parameters()).device)


class IdentityMapping(nn.Module):
    """phi S_l(X_l), added to what layer l makes of X_l (Eq. 3.10); `phi` is set by whoever searches.

    A layer is a slot of a chain, and a whole cell where slots are its edges.

    S_l is the identity where the layer keeps its shape, and a projection where channels or resolution change. Slots
    whose output is no feature map of the same or half the resolution (a classifier) get none.
    """

    def __init__(self, space: SearchSpace, supernet: Any) -> None:
        super().__init__()
        self.phi = 0.0
        self.kept = nn.ModuleDict()

        def note(slot: int, x: Tensor, output: Tensor) -> Tensor:
            way = _way(x.shape, output.shape)
            if way is not None:
                self.kept[str(slot)] = way
            return output

        first = (0,) * len(space.slots)
        mode = supernet.training
        with torch.no_grad():
            supernet.eval()
            for slot in range(len(space.slots)):
                arch = space.enable(first, slot)
                if arch is not None:
                    supernet(*space.inputs(1, arch), path=Path(arch, None, note))
        supernet.train(mode)

    @classmethod
    def of(cls, space: SearchSpace, supernet: Any) -> IdentityMapping | None:
        """None for a supernet whose slots are no layers, as depths and widths of residual stages."""
        made = cls(space, supernet)
        return made if len(made.kept) else None

    def forward(self, slot: int, x: Tensor, output: Tensor) -> Tensor:
        if self.phi == 0.0 or str(slot) not in self.kept:
            return output
        added: Tensor = output + self.phi * self.kept[str(slot)](x)
        return added


def _way(before: Sequence[int], after: Sequence[int]) -> nn.Module | None:
    """From one shape (n, c, h, w) to the other: 1x1 convolution with norm, 2x2 max pooling, as far as needed."""
    if tuple(before) == tuple(after):
        return nn.Identity()
    halved = tuple(-(-size // 2) for size in before[2:])
    if len(before) != 4 or tuple(after[2:]) not in (tuple(before[2:]), halved):
        return None
    channels = [nn.Conv2d(before[1], after[1], 1, bias=False), nn.BatchNorm2d(after[1], affine=False)]
    smaller = [] if after[2:] == before[2:] else [nn.MaxPool2d(2, ceil_mode=True)]
    return nn.Sequential(*(channels if before[1] != after[1] else []), *smaller)


def _without_affine(supernet: nn.Module) -> None:
    for module in supernet.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.affine, module.weight, module.bias = False, None, None  # type: ignore[assignment]


def _parts(space: SearchSpace, arch: Sequence[int]) -> list[Any]:
    parts = space.parts(arch)
    assert parts is not None  # local_parts says so
    return parts


@contextmanager
def recalibrated(network: nn.Module, batches: Iterable[tuple[Tensor, ...]], **forward: Any) -> Iterator[nn.Module]:
    """The network in evaluation mode with batch-norm statistics of these inputs alone; restored afterwards.

    Statistics are reset and set to the plain mean over the batches, so that what was evaluated before, and in which
    order, does not matter. `forward` goes to every call (`path=` for a supernet). Only norms that ran are touched.
    """
    saved: dict[nn.Module, tuple[dict[str, Tensor], float | None]] = {}

    def prepare(norm: Any, _: Any) -> None:
        if norm not in saved:
            saved[norm] = ({k: v.clone() for k, v in norm.state_dict().items()}, norm.momentum)
            norm.reset_running_stats()
            norm.momentum = None  # plain mean
            norm.train()

    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    handles = [norm.register_forward_pre_hook(prepare) for norm in norms]
    mode = network.training
    try:
        network.eval()
        with torch.no_grad():
            for x in batches:
                network(*x, **forward)
        for handle in handles:
            handle.remove()
        network.eval()
        yield network
    finally:
        for handle in handles:
            handle.remove()
        for module, (state, momentum) in saved.items():
            module.load_state_dict(state)
            module.momentum = momentum  # type: ignore[assignment]
        network.train(mode)
