"""How wide each layer of one network is: the channel space of LightNAS (thesis 4.3.5, Eq. 4.13).

Every searchable layer of a network of `spaces/mobilenet` is scaled by one of seven factors, 7^21 choices for a
LightNet. Channels are multiples of 8, so that in narrow layers several factors give one width: a slot has each width
once, which leaves half of the choices for a LightNet of width 1.

The thesis does not say what is scaled. `mode="output"`, the default, scales what a layer gives: the layer behind it
takes as many, shortcuts are where input and output have become equal, and a skip whose sides differ is a 1x1
convolution, so that all layers count, as in 7^21. `mode="hidden"` scales what is inside inverted residual blocks
instead, whose outer channels and shortcuts stay; skips have nothing inside and no slot.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from sartor.core import Architecture, Json, Part, SearchSpace, Slot
from sartor.core.errors import UserError, unknown
from sartor.spaces.chain import ChainSpace
from sartor.spaces.mobilenet import MobileNet, activation

if TYPE_CHECKING:
    from torch import Tensor, nn

SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
MODES = ("output", "hidden")


class Channels(ChainSpace):
    """A slot per layer of one network, its candidates those of the factors `SCALES` that make a difference.

    of, arch: the network, of a `MobileNet` space; mode: what is scaled. `unscaled` is that very network.
    """

    def __init__(self, of: SearchSpace, arch: Sequence[int], mode: str = "output") -> None:
        if not isinstance(of, MobileNet):
            raise UserError(
                f"channels are searched of networks of space 'mobilenet', this one is of {of.name!r}; "
                "give a run that searched there."
            )
        if mode not in MODES:
            raise unknown("mode of space 'channels':", mode, MODES)
        self.of, self.arch, self.mode = of, of.canonical(arch), mode
        self.optimiser = of.optimiser
        hidden = mode == "hidden"
        self.local_parts, self.chained_parts = hidden, not hidden
        layers = [i for i, k in enumerate(self.arch) if not (hidden and self.of.slots[i].candidates[k] == "skip")]
        if not layers:
            raise UserError("every layer of this network is a skip: nothing is inside to be scaled; use mode='output'.")
        self.slot_of = {layer: slot for slot, layer in enumerate(layers)}
        self.scales = tuple(_distinct(self._channels(layer)) for layer in layers)
        names = (tuple(f"x{scale:g}" for scale in scales) for scales in self.scales)
        self.slots = tuple(Slot(f"layer{i + 1}", candidates) for i, candidates in zip(layers, names))

    @property
    def unscaled(self) -> Architecture:
        """The architecture of the network as it was."""
        return tuple(scales.index(1.0) for scales in self.scales)

    def _channels(self, layer: int) -> int:
        """How many there are of what is scaled."""
        if self.mode == "output":
            return self.of.rows[layer][1]
        inputs, _, _, expansion, _, _ = self.of.block(layer, self.arch[layer])
        return inputs * expansion

    def spec(self) -> dict[str, Json]:
        return {"space": "channels", "of": self.of.spec(), "architecture": list(self.arch), "mode": self.mode}

    def scaled(self, width: float) -> Channels:
        return Channels(self.of.scaled(width), self.arch, self.mode)

    def references(self) -> Iterator[tuple[SearchSpace, Architecture]]:
        yield from self.of.references()

    def inputs(self, batch: int, arch: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        return self.of.inputs(batch)

    def parts(self, arch: Sequence[int]) -> list[Part]:
        scales = self._scales(arch)
        if self.mode == "hidden":
            return [self._inside(part, scales) for part in self.of.parts(self.arch)]
        rows, inputs = [], self.of.layout.first
        for (_, outputs, stride, pixels), scale in zip(self.of.rows, scales):
            rows.append((inputs, _scaled(outputs, scale), stride, pixels))
            inputs = rows[-1][1]
        *chain, head = self.of.chain(self.arch, rows)
        return [*chain, replace(head, slot=len(self.slots) - 1)]  # it takes what the last layer gives

    def _scales(self, arch: Sequence[int]) -> list[float]:
        """A factor per layer, 1 for those without a slot."""
        chosen = self.canonical(arch)
        slots = (self.slot_of.get(layer) for layer in range(len(self.arch)))
        return [1.0 if slot is None else self.scales[slot][chosen[slot]] for slot in slots]

    def _inside(self, part: Part, scales: Sequence[float]) -> Part:
        """The same part, of the slots of this space, with what is inside scaled."""
        if part.slot is None or part.slot not in self.slot_of:
            return replace(part, slot=None)
        layer, slot = part.slot, self.slot_of[part.slot]
        if scales[layer] == 1.0:
            return replace(part, slot=slot)
        inputs, outputs, kernel, _, stride, se = self.of.block(layer, self.arch[layer])
        hidden = _scaled(self._channels(layer), scales[layer])
        make = partial(_mbconv, inputs, outputs, kernel, stride, se, hidden, self.of.act)
        return Part(f"{part.key}-hidden{hidden}", slot, make, part.inputs)


def _distinct(channels: int) -> tuple[float, ...]:
    """One factor for each width, in order: 1 for the width as it is, else the one that comes nearest to it."""
    nearest: dict[int, float] = {}
    for scale in sorted(SCALES, key=lambda scale: (scale != 1.0, abs(_scaled(channels, scale) / channels - scale))):
        nearest.setdefault(_scaled(channels, scale), scale)
    return tuple(nearest[width] for width in sorted(nearest))


def _scaled(channels: int, scale: float) -> int:
    from sartor.layers.mbconv import make_divisible

    return channels if scale == 1.0 else make_divisible(channels * scale)


def _mbconv(inputs: int, outputs: int, kernel: int, stride: int, se: bool, hidden: int, act: str) -> nn.Module:
    from sartor.layers.mbconv import MBConv

    return MBConv(inputs, outputs, kernel, 1, stride, se, activation(act), hidden)
