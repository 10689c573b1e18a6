"""Chains of inverted residual blocks: the spaces of LightNAS and SurgeNAS, and smaller ones of the same make.

Each searchable layer picks one of seven operators: MBConv with kernel 3, 5, 7 and expansion 3, 6, or a skip, which is
the identity where the shape is kept and a strided 1x1 convolution where it changes (LightNAS code). Layouts: LightNAS,
ALGORITHMS 4.7; SurgeNAS, thesis Table 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sartor.core import Architecture, Json, Part, Slot
from sartor.core.errors import UserError, unknown
from sartor.spaces.chain import ChainSpace
from sartor.spaces.options import Row, check_ranges, halve, layer_rows, widened

if TYPE_CHECKING:
    from torch import Tensor, nn

OPERATORS = ("k3e3", "k3e6", "k5e3", "k5e6", "k7e3", "k7e6", "skip")
SEVEN = len(OPERATORS)
SE_LAYERS = 9  # the last nine layers, as thesis Table 4.5
CHOOSE = "choose"
ACTIVATIONS = {"relu6": "ReLU6", "relu": "ReLU", "hardswish": "Hardswish", "silu": "SiLU"}


@dataclass(frozen=True)
class Layout:
    """stem: channels, stride; first: channels of the fixed k3e1 block; stages: (channels, layers, stride);
    head: channels of the last 1x1 convolution; hidden: features of the extra linear layer, 0 for none."""

    stem: tuple[int, int]
    first: int
    stages: tuple[tuple[int, int, int], ...]
    head: int
    hidden: int
    resolution: int
    channels: int
    classes: int


PRESETS: dict[str, Layout] = {
    "lightnas": Layout(
        stem=(16, 2),
        first=16,
        stages=((24, 2, 2), (48, 3, 2), (72, 4, 2), (128, 3, 1), (160, 4, 2), (176, 4, 1), (384, 1, 1)),
        head=1984,
        hidden=1280,
        resolution=224,
        channels=3,
        classes=1000,
    ),
    "surgenas": Layout(
        stem=(40, 2),
        first=24,
        stages=((32, 4, 2), (56, 4, 2), (112, 4, 2), (128, 4, 1), (256, 4, 2), (432, 1, 1)),
        head=1728,
        hidden=0,
        resolution=224,
        channels=3,
        classes=1000,
    ),
    "cifar": Layout(
        stem=(16, 1),
        first=16,
        stages=((16, 1, 1), (24, 4, 2), (48, 5, 2), (80, 5, 1), (128, 5, 2), (192, 1, 1)),
        head=640,
        hidden=0,
        resolution=32,
        channels=3,
        classes=10,
    ),
    "tiny": Layout(
        stem=(24, 1),
        first=24,
        stages=((24, 3, 1), (48, 3, 2), (80, 3, 2)),
        head=256,
        hidden=0,
        resolution=8,
        channels=1,
        classes=10,
    ),
}


class MobileNet(ChainSpace):
    """One operator of seven per layer, or of thirteen where squeeze-excite is a choice.

    preset: layout (`lightnas`, `surgenas`, `cifar` for 32x32 images, `tiny` for the quickstart);
    resolution, channels, classes, layers: default to the preset's (layers are spread over its stages in proportion);
    width: multiplier of all channels, rounded to multiples of 8; se: squeeze-excite in the last nine layers, `choose`:
    each of their operators but the skip with and without; act: activation (`relu6`, `relu`, `hardswish`, `silu`);
    dropout: before the classifier.
    """

    presets = tuple(PRESETS)
    local_parts = True

    def __init__(
        self,
        preset: str = "lightnas",
        *,
        resolution: int | None = None,
        channels: int | None = None,
        classes: int | None = None,
        layers: int | None = None,
        width: float = 1.0,
        se: bool | str = False,
        act: str = "relu6",
        dropout: float = 0.2,
    ) -> None:
        from sartor.layers.mbconv import make_divisible

        if not isinstance(preset, str) or preset not in PRESETS:
            raise unknown("preset of space 'mobilenet':", preset, PRESETS)
        if not isinstance(se, bool) and se != CHOOSE:
            raise UserError(f"mobilenet option se={se!r} is neither true, false nor {CHOOSE}; give one of them.")
        if act not in ACTIVATIONS:
            raise unknown("activation of space 'mobilenet':", act, ACTIVATIONS)
        layout = PRESETS[preset]
        self.preset, self.se, self.act = preset, se, act
        self.resolution = layout.resolution if resolution is None else resolution
        self.channels = layout.channels if channels is None else channels
        self.classes = layout.classes if classes is None else classes
        stages = layout.stages if layers is None else _spread(layout.stages, layers)
        self.layers = sum(n for _, n, _ in stages)
        check_ranges(
            "mobilenet",
            ("resolution", self.resolution, 8, 1024),
            ("channels", self.channels, 1, 1024),
            ("classes", self.classes, 2, 10**6),
            ("width", width, 0.05, 20.0),
            ("dropout", dropout, 0.0, 0.95),
        )
        self.width, self.dropout = float(width), float(dropout)

        def scaled(channels: int) -> int:
            return channels if self.width == 1.0 else make_divisible(channels * self.width)

        self.layout = replace(
            layout,
            stem=(scaled(layout.stem[0]), layout.stem[1]),
            first=scaled(layout.first),
            stages=tuple((scaled(c), n, s) for c, n, s in stages),
            head=scaled(layout.head),
            hidden=scaled(layout.hidden) if layout.hidden else 0,
        )
        pixels = halve(self.resolution, self.layout.stem[1])
        self.rows: tuple[Row, ...] = layer_rows(self.layout.first, self.layout.stages, pixels)
        self.slots = tuple(Slot(f"layer{i + 1}", self._operators(i)) for i in range(self.layers))

    def spec(self) -> dict[str, Json]:
        return {
            "space": "mobilenet",
            "preset": self.preset,
            "resolution": self.resolution,
            "channels": self.channels,
            "classes": self.classes,
            "layers": self.layers,
            "width": self.width,
            "se": self.se,
            "act": self.act,
            "dropout": self.dropout,
        }

    def scaled(self, width: float) -> MobileNet:
        return widened(self, width)

    def inputs(self, batch: int, arch: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        import torch

        return (torch.randn(batch, self.channels, self.resolution, self.resolution),)

    def parts(self, arch: Sequence[int]) -> list[Part]:
        return self.chain(self.canonical(arch), self.rows)

    def chain(self, arch: Architecture, rows: Sequence[Row]) -> list[Part]:
        """The parts of an architecture whose layers are as in `rows`, which may be of other channels."""
        stem, stem_stride = self.layout.stem
        size = halve(self.resolution, stem_stride)
        parts = [
            Part(
                f"stem-{self.channels}-{stem}-s{stem_stride}{self._word}@{self.resolution}",
                None,
                lambda: _stem(self.channels, stem, stem_stride, self.act),
                ((self.channels, self.resolution, self.resolution),),
            ),
            self._operator("k3e1", None, stem, self.layout.first, 1, size, se=False),
        ]
        for i, ((inputs, outputs, stride, pixels), k) in enumerate(zip(rows, arch)):
            parts.append(self._operator(OPERATORS[k % SEVEN], i, inputs, outputs, stride, pixels, self._has_se(i, k)))
        inputs, outputs, stride, pixels = rows[-1]
        head = (outputs, self.layout.head, self.layout.hidden, self.classes, self.dropout)
        last = halve(pixels, stride)
        key = f"head-{'-'.join(map(str, head))}{self._word}@{last}"
        parts.append(Part(key, None, lambda: _head(*head, self.act), ((outputs, last, last),)))
        return parts

    def block(self, layer: int, candidate: int) -> tuple[int, int, int, int, int, bool]:
        """Input and output channels, kernel, expansion, stride and squeeze-excite of a candidate that is no skip."""
        (inputs, outputs, stride, _), name = self.rows[layer], OPERATORS[candidate % SEVEN]
        return inputs, outputs, int(name[1]), int(name[3]), stride, self._has_se(layer, candidate)

    def _operators(self, layer: int) -> tuple[str, ...]:
        """Candidates of a layer; a choice of squeeze-excite doubles all that are no skip."""
        chosen = self.se == CHOOSE and layer >= self.layers - SE_LAYERS
        return OPERATORS + tuple(f"{name}-se" for name in OPERATORS[:-1]) if chosen else OPERATORS

    def _has_se(self, layer: int, candidate: int) -> bool:
        return candidate >= SEVEN if self.se == CHOOSE else bool(self.se) and layer >= self.layers - SE_LAYERS

    @property
    def _word(self) -> str:
        """What keys of parts say of an activation that is not that of the papers."""
        return "" if self.act == "relu6" else f"-{self.act}"

    def _operator(
        self, name: str, slot: int | None, inputs: int, outputs: int, stride: int, pixels: int, se: bool
    ) -> Part:
        shape = ((inputs, pixels, pixels),)
        if name == "skip":
            key = f"skip-{inputs}-{outputs}-s{stride}{self._word}@{pixels}"
            return Part(key, slot, lambda: _skip(inputs, outputs, stride, self.act), shape)
        block = (inputs, outputs, int(name[1]), int(name[3]), stride, se)
        key = f"mb-{name}-{inputs}-{outputs}-s{stride}{'-se' if se else ''}{self._word}@{pixels}"
        return Part(key, slot, lambda: _mbconv(*block, self.act), shape)


def _spread(stages: tuple[tuple[int, int, int], ...], layers: int) -> tuple[tuple[int, int, int], ...]:
    """The stages with `layers` layers in all, in proportion to the preset's, at least one each."""
    if isinstance(layers, bool) or not isinstance(layers, int) or not len(stages) <= layers <= 200:
        raise UserError(f"mobilenet option layers={layers!r} is out of range; give {len(stages)} to 200.")
    total = sum(n for _, n, _ in stages)
    counts = [max(1, layers * n // total) for _, n, _ in stages]
    while sum(counts) != layers:  # largest deficit (or surplus) first
        step = 1 if sum(counts) < layers else -1
        able = [i for i in range(len(stages)) if counts[i] + step >= 1]
        counts[max(able, key=lambda i: step * (stages[i][1] / total - counts[i] / layers))] += step
    return tuple((c, n, s) for (c, _, s), n in zip(stages, counts))


def activation(name: str) -> type[nn.Module]:
    """The module of an activation's name."""
    from torch import nn

    found: type[nn.Module] = getattr(nn, ACTIVATIONS[name])
    return found


def _stem(inputs: int, outputs: int, stride: int, act: str) -> nn.Module:
    from torch import nn

    from sartor.layers.mbconv import conv_norm_act

    return nn.Sequential(*conv_norm_act(inputs, outputs, 3, stride, act=activation(act)))


def _skip(inputs: int, outputs: int, stride: int, act: str) -> nn.Module:
    from sartor.layers.mbconv import skip

    return skip(inputs, outputs, stride, activation(act))


def _mbconv(inputs: int, outputs: int, kernel: int, expansion: int, stride: int, se: bool, act: str) -> nn.Module:
    from sartor.layers.mbconv import MBConv

    return MBConv(inputs, outputs, kernel, expansion, stride, se, activation(act))


def _head(inputs: int, features: int, hidden: int, classes: int, dropout: float, act: str) -> nn.Module:
    from torch import nn

    from sartor.layers.mbconv import conv_norm_act

    extra = [nn.Linear(features, hidden, bias=False), nn.BatchNorm1d(hidden), activation(act)()] if hidden else []
    return nn.Sequential(
        *conv_norm_act(inputs, features, 1, act=activation(act)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        *extra,
        nn.Dropout(dropout),
        nn.Linear(hidden or features, classes),
    )
