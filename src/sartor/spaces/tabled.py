"""Spaces that exist as tables only: their slots are known, and what their networks cost, but not how to build them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING

import numpy as np

from sartor.core import Json, SearchSpace, Slot, UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

FBNET_OPERATORS = ("k3_e1", "k3_e1_g2", "k3_e3", "k3_e6", "k5_e1", "k5_e1_g2", "k5_e3", "k5_e6", "skip")
OFA_KERNELS, OFA_EXPANSIONS, OFA_DEPTHS = (3, 5, 7), (3, 4, 6), (2, 3, 4)
OFA_RESOLUTIONS = tuple(range(128, 225, 4))
OFA_UNITS = 5
HAT_WIDTHS, HAT_FFN, HAT_HEADS, HAT_ATTENDED = (512, 640), (512, 1024, 2048, 3072), (2, 4, 8), (1, 2, 3)
HAT_LAYERS = 6


class Tabled(SearchSpace):
    """Slots without networks. Raises UserError when one is to be built."""

    def __init__(self, name: str, slots: Iterable[Slot]) -> None:
        self._name, self.slots = name, tuple(slots)

    def spec(self) -> dict[str, Json]:
        return {"space": self._name}

    def inputs(self, batch: int, arch: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        raise self._refused()

    def network(self, arch: Sequence[int]) -> nn.Module:
        raise self._refused()

    def _refused(self) -> UserError:
        return UserError(
            f"space {self._name!r} is read from tables and builds no networks; give its table to sartor bench, "
            "or take a space with networks such as mobilenet."
        )


def fbnet() -> Tabled:
    """FBNet (B. Wu et al., CVPR 2019) as HELP measured it: 22 layers of nine operators.

    Predictors see what operators have in common. That leaves nothing out and needs fewer rows: held-out Spearman of
    ridge on the Xeon Gold, one-hot and so: .68 and .81 with 100 rows, .974 and .974 with 900.
    """
    plain = np.array([(1, 0, 0), (1, 1, 0), (3, 0, 1), (6, 0, 0)], dtype=float)  # expansion, grouped, off the line
    features = np.zeros((len(FBNET_OPERATORS), 8))
    features[:4, :3] = features[4:8, :3] = features[4:8, 3:6] = plain
    features[4:8, 6] = features[8, 7] = 1.0  # a kernel of 5, a skip
    return Tabled("fbnet", (Slot(f"layer{i}", FBNET_OPERATORS, features) for i in range(22)))


def ofa_mobilenetv3() -> Tabled:
    """OFA MobileNetV3 (H. Cai et al., ICLR 2020): 25 resolutions x 7,371^5 networks.

    Slots: the resolution, then for each of five units its depth (2 to 4) and of each of its layers the kernel and the
    expansion; the third and fourth layer exist where the unit is that deep.

    Predictors see numbers as numbers, so that few rows tell about all candidates: a resolution with its square, the
    others with how far the middle one is off the line, which leaves nothing out. Held-out Spearman of ridge on the
    latency of a batch of 64, one-hot and so: .52 and .89 with 50 rows, .994 and .993 with 900.
    """
    size = np.array(OFA_RESOLUTIONS) / max(OFA_RESOLUTIONS)
    slots = [Slot("resolution", tuple(map(str, OFA_RESOLUTIONS)), np.stack([size, size**2], axis=1))]

    def add(name: str, values: Sequence[int], when: tuple[int, frozenset[int]] | None = None) -> None:
        line = np.array(values) / max(values)
        columns = [line, np.array([0.0, 1.0, 0.0]), *([np.ones(3)] if when else [])]  # the last: that it exists
        slots.append(Slot(name, tuple(map(str, values)), np.stack(columns, axis=1), when))

    for unit in range(OFA_UNITS):
        depth = len(slots)
        add(f"depth{unit}", OFA_DEPTHS)
        for layer in range(max(OFA_DEPTHS)):
            deep = frozenset(i for i, d in enumerate(OFA_DEPTHS) if d > layer)
            when = (depth, deep) if len(deep) < len(OFA_DEPTHS) else None
            add(f"kernel{unit}.{layer}", OFA_KERNELS, when)
            add(f"expansion{unit}.{layer}", OFA_EXPANSIONS, when)
    return Tabled("ofa-mobilenetv3", slots)


def hat() -> Tabled:
    """What HAT's latency tables (H. Wang et al., ACL 2020) tell of a SuperTransformer: averages over its layers.

    The tables do not hold architectures. A slot is an average that they give, a candidate a value it can have, so that
    an architecture here stands for every network with these averages, which the tables cannot tell apart. The slots of
    decoder averages exist for one number of layers each, because it decides which averages are possible.
    """

    def average(name: str, layers: int, settings: Sequence[int], when: tuple[int, frozenset[int]] | None) -> Slot:
        values = averages(layers, settings)
        return Slot(name, tuple(f"{v:.6g}" for v in values), np.array(values)[:, None] / max(settings), when)

    slots = [
        Slot("encoder embed", tuple(map(str, HAT_WIDTHS))),
        average("encoder ffn", HAT_LAYERS, HAT_FFN, None),
        average("encoder heads", HAT_LAYERS, HAT_HEADS, None),
        Slot("decoder embed", tuple(map(str, HAT_WIDTHS))),
        Slot("decoder layers", tuple(str(n + 1) for n in range(HAT_LAYERS))),
    ]
    for n in range(HAT_LAYERS):
        when = (4, frozenset({n}))
        for what, settings in (
            ("ffn", HAT_FFN),
            ("self heads", HAT_HEADS),
            ("cross heads", HAT_HEADS),
            ("attended", HAT_ATTENDED),
        ):
            slots.append(average(f"decoder {what} of {n + 1}", n + 1, settings, when))
    return Tabled("hat", slots)


def averages(layers: int, settings: Sequence[int]) -> list[float]:
    """Every average that so many layers can have, in rising order."""
    return [total / layers for total in sorted({sum(c) for c in combinations_with_replacement(settings, layers)})]
