"""One operator everywhere, scaled: the MobileNetV2-like baselines that a search has to beat (thesis Fig. 4.16)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sartor.core import Json, Part, Slot
from sartor.core.errors import UserError, unknown
from sartor.spaces.chain import ChainSpace
from sartor.spaces.mobilenet import OPERATORS, MobileNet

if TYPE_CHECKING:
    from torch import Tensor


class Uniform(ChainSpace):
    """Slots: the width multiplier and the resolution of a MobileNet whose layers all hold one operator.

    preset: layout of `MobileNet`; operator: what every layer holds; widths, resolutions: the candidates
    (resolutions default to the preset's alone); the other options are those of `MobileNet`.
    """

    presets = MobileNet.presets

    def __init__(
        self,
        preset: str = "lightnas",
        *,
        operator: str = "k3e6",
        widths: Sequence[float] = (1.0,),
        resolutions: Sequence[int] | None = None,
        channels: int | None = None,
        classes: int | None = None,
        layers: int | None = None,
        se: bool = False,
        act: str = "relu6",
        dropout: float = 0.2,
    ) -> None:
        if operator not in OPERATORS:
            raise unknown("operator", operator, OPERATORS)
        if not isinstance(se, bool):
            raise UserError(f"uniform option se={se!r} is neither true nor false; give one of them.")
        for name, values in (("widths", widths), ("resolutions", resolutions)):
            if values is not None and (not isinstance(values, list | tuple) or not values):
                raise UserError(f"uniform option {name}={values!r} is no list of numbers; give it in a JSON file.")
        self.operator, self.widths = operator, tuple(widths)
        options: dict[str, Any] = {
            "channels": channels,
            "classes": classes,
            "layers": layers,
            "se": se,
            "act": act,
            "dropout": dropout,
        }
        self.resolutions = tuple(resolutions or (MobileNet(preset, **options).resolution,))
        self._scaled = [
            [MobileNet(preset, width=w, resolution=r, **options) for r in self.resolutions] for w in self.widths
        ]
        self.widths = tuple(map(float, self.widths))
        self.slots = (
            Slot("width", tuple(f"{w:g}" for w in self.widths)),
            Slot("resolution", tuple(map(str, self.resolutions))),
        )

    def base(self, arch: Sequence[int]) -> tuple[MobileNet, tuple[int, ...]]:
        """The same network as a member of a MobileNet space."""
        width, resolution = self.canonical(arch)
        space = self._scaled[width][resolution]
        return space, (OPERATORS.index(self.operator),) * len(space.slots)

    def spec(self) -> dict[str, Json]:
        options = self._scaled[0][0].spec()
        scaled = {"widths": list(self.widths), "resolutions": list(self.resolutions), "operator": self.operator}
        return {k: v for k, v in options.items() if k not in ("width", "resolution")} | {"space": "uniform"} | scaled

    def key(self, arch: Sequence[int]) -> str:
        space, same = self.base(arch)
        return space.key(same)

    def inputs(self, batch: int, arch: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        return self.base((0, 0) if arch is None else arch)[0].inputs(batch)

    def parts(self, arch: Sequence[int]) -> list[Part]:
        space, same = self.base(arch)
        return [Part(part.key, None, part.make, part.inputs) for part in space.parts(same)]
