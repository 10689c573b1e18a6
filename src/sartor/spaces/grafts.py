"""What can be grafted of a given network: the space of Domino (thesis 5.3.1), and partial grafts.

A slot per block that tracing finds, its candidates `keep`, `graft` (the published two), `first` and `last` (two of the
convolutions merged) and `skip` (the shortcut alone), as far as the block has them: `reparam.blocks`, `reparam.graft`.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING

from sartor.core import Architecture, Json, Part, Slot
from sartor.core.errors import UserError, unknown
from sartor.spaces import models
from sartor.spaces.chain import ChainSpace
from sartor.spaces.options import check_ranges

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sartor.core.task import Supernet
    from sartor.reparam.blocks import Anatomy

CANDIDATES = ("keep", "graft", "first", "last", "skip")


class Grafts(ChainSpace):
    """Grafted versions of one network; `unchanged` is the network itself.

    model: `torchvision:NAME`, `run:DIR` or `FILE.py:FUNCTION`; weights: a file of them, default those of the run, if
    any; channels, resolution: of the images; candidates: which of `CANDIDATES` there are, `keep` always; border, linear
    and last: of `reparam.graft`; wider, deeper: networks to be trained are so much larger where they are merged
    (Domino-Pro, `reparam.pro`), what is measured and deployed is the same. Dropout and stochastic depth inside of
    blocks are left out. Raises UserError where the network has no block that can be grafted, with the reasons.
    """

    local_parts = True

    def __init__(
        self,
        model: str,
        *,
        weights: str | None = None,
        channels: int = 3,
        resolution: int = 224,
        candidates: Sequence[str] | str = CANDIDATES,
        border: str = "pad-first",
        linear: str = "identity",
        last: str = "add",
        wider: int = 1,
        deeper: int = 0,
    ) -> None:
        from sartor.reparam.border import BORDERS
        from sartor.reparam.graft import LAST, LINEAR
        from sartor.reparam.graft import candidates as of_block

        for word, value, known in (("border", border, BORDERS), ("linear", linear, LINEAR), ("last", last, LAST)):
            if value not in known:
                raise unknown(f"{word} of space 'grafts':", value, known)
        chosen = candidates.split(",") if isinstance(candidates, str) else candidates
        for candidate in chosen:
            if candidate not in CANDIDATES:
                raise unknown("candidate of space 'grafts':", candidate, CANDIDATES)
        check_ranges(
            "grafts",
            ("channels", channels, 1, 4096),
            ("resolution", resolution, 1, 4096),
            ("wider", wider, 1, 16),
            ("deeper", deeper, 0, 16),
        )
        self.model, self.weights, self.border, self.linear, self.last = model, weights, border, linear, last
        self.channels, self.resolution, self.wider, self.deeper = channels, resolution, wider, deeper
        self.candidates = tuple(c for c in CANDIDATES if c == "keep" or c in chosen)
        self._source = models.model(model)
        self.anatomy = self._look()
        self.slots = tuple(
            Slot(block.name, tuple(c for c in self.candidates if c in of_block(block))) for block in self.anatomy.blocks
        )
        self._keys: dict[tuple[int, str], str] = {}
        self._shapes  # noqa: B018  # says so now where the network takes other images

    @property
    def unchanged(self) -> Architecture:
        """The architecture of the network as it was."""
        return (0,) * len(self.slots)

    @property
    def trained(self) -> bool:
        """Whether the model came with weights."""
        return self.weights is not None or self._source.trained is not None

    def spec(self) -> dict[str, Json]:
        return {
            "space": "grafts",
            "model": self.model,
            "weights": self.weights,
            "channels": self.channels,
            "resolution": self.resolution,
            "candidates": list(self.candidates),
            "border": self.border,
            "linear": self.linear,
            "last": self.last,
            "wider": self.wider,
            "deeper": self.deeper,
        }

    def inputs(self, batch: int, arch: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        import torch

        return (torch.randn(batch, self.channels, self.resolution, self.resolution),)

    def network(self, arch: Sequence[int]) -> nn.Module:
        from sartor.reparam.blocks import anatomy

        return self.assemble(self._modules(anatomy(self._source.make()), arch))

    def tuned(self, arch: Sequence[int]) -> nn.Module:
        """The network with the weights that the model came with; fresh where it came with none."""
        return self.assemble(self._modules(self._look(), arch))

    def supernet(self) -> Supernet:
        """All candidates of a block have the weights of that block, which begin as the model's own."""
        from sartor.supernet import SharingSupernet

        found = self._look()
        columns = [[self._module(found, i, name) for name in self._names(i)] for i in range(len(self._layout))]
        return SharingSupernet(self, [slot for slot, _ in self._layout], columns)

    def parts(self, arch: Sequence[int]) -> list[Part]:
        return [
            Part(self._key(i, name), slot, partial(self._own, i, name), (shape,))
            for i, (name, (slot, _), shape) in enumerate(zip(self._chosen(arch), self._layout, self._shapes))
        ]

    def counted(self, arch: Sequence[int]) -> list[Part]:
        """What is left of them once they are collapsed."""
        return [Part(part.key, part.slot, partial(_collapsed, part.make), part.inputs) for part in self.parts(arch)]

    def assemble(self, modules: Sequence[nn.Module]) -> nn.Module:
        from torch import nn

        return nn.Sequential(*modules)

    # ------------------------------------------------------------------ the chain

    def _look(self) -> Anatomy:
        from sartor.reparam.blocks import anatomy

        return anatomy(self._source.load(self.weights))

    @cached_property
    def _layout(self) -> tuple[tuple[int | None, tuple[int, ...]], ...]:
        """Slot, and which stages of the anatomy: a block alone, what is between two blocks together."""
        from sartor.reparam.blocks import Block

        rows: list[tuple[int | None, list[int]]] = []
        slots = 0
        for i, stage in enumerate(self.anatomy.stages):
            if isinstance(stage, Block):
                rows.append((slots, [i]))
                slots += 1
            elif rows and rows[-1][0] is None:
                rows[-1][1].append(i)
            else:
                rows.append((None, [i]))
        return tuple((slot, tuple(stages)) for slot, stages in rows)

    @cached_property
    def _shapes(self) -> list[tuple[int, ...]]:
        """Of what goes into each piece, without the batch."""
        import torch

        x, shapes = self.inputs(1)[0], []
        try:
            with torch.no_grad():
                for i in range(len(self._layout)):
                    shapes.append(tuple(x.shape[1:]))
                    x = copy.deepcopy(self._module(self.anatomy, i, "keep", sized=False)).eval()(x)
        except Exception as error:
            raise UserError(
                f"{self.model} does not take images of {self.channels} x {self.resolution} x {self.resolution} "
                f"({str(error).partition(chr(10))[0]}); give data, or a network, that fit (grey data: ?channels=3)."
            ) from None
        return shapes

    def _names(self, piece: int) -> tuple[str, ...]:
        slot, _ = self._layout[piece]
        return ("keep",) if slot is None else tuple(self.slots[slot].candidates)

    def _chosen(self, arch: Sequence[int]) -> list[str]:
        """The candidate of each piece; what is no block is kept."""
        arch = self.canonical(arch)
        return [self._names(i)[0 if slot is None else arch[slot]] for i, (slot, _) in enumerate(self._layout)]

    def _modules(self, found: Anatomy, arch: Sequence[int]) -> list[nn.Module]:
        return [self._module(found, i, name, larger=True) for i, name in enumerate(self._chosen(arch))]

    def _module(self, found: Anatomy, piece: int, name: str, *, sized: bool = True, larger: bool = False) -> nn.Module:
        """One piece, its weights those of the anatomy. sized: it knows of which size its inputs are; larger: as it is
        trained."""
        from torch import nn

        from sartor.reparam.graft import graft

        slot, stages = self._layout[piece]
        if slot is None:
            return nn.Sequential(*(found.stages[i] for i in stages))  # type: ignore[arg-type]  # modules, where no slot is
        size = self._shapes[piece][1:] if sized and self.border == "bias-map" else None
        more = (self.wider, self.deeper) if larger else (1, 0)
        options = (self.border, self.linear, self.last, size, *more)
        return graft(found.blocks[slot], name, *options)  # type: ignore[arg-type]  # checked

    def _own(self, piece: int, name: str) -> nn.Module:
        return copy.deepcopy(self._module(self.anatomy, piece, name))

    def _key(self, piece: int, name: str) -> str:
        """Of blocks, what they are made of; of what is between, where it is: there the user's own layers may be."""
        if (piece, name) not in self._keys:
            slot, _ = self._layout[piece]
            module = self._module(self.anatomy, piece, name)
            what = f"{self.border} {module}" if slot is not None else f"{self.model} {piece} {module}"
            self._keys[piece, name] = f"{name}-{hashlib.sha256(what.encode()).hexdigest()[:16]}"
        return self._keys[piece, name]


def _collapsed(make: Callable[[], nn.Module]) -> nn.Module:
    """On the device where counting puts things: without numbers nothing has to be multiplied."""
    import torch

    from sartor.reparam.fold import deployed

    return deployed(make().to(torch.get_default_device()))
