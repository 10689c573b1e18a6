"""Which blocks a dynamic network keeps, and all of them with one set of weights and statistics.

MathNAS, section 3.4: five Pareto-optimal blocks of every slot. The paper does not say which five of a front: here the
two ends, the block of the network found, and what lies evenly between.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sartor.choose.neighbours import linear
from sartor.core import Architecture, F, Path, Score, SearchSpace, UserError
from sartor.core.restricted import Restricted


def keep_blocks(space: SearchSpace, quality: Score, cost: Score, arch: Architecture, *, most: int = 5) -> Restricted:
    """The space with `most` blocks a slot, by what each alone changes in the network found; fastest first."""
    sign = -1.0 if quality.metric.better == "more" else 1.0
    worse, dearer = linear(space, quality, arch).times(sign), linear(space, cost, arch)
    kept = [pareto(w, c, most, k) for w, c, k in zip(worse.unary, dearer.unary, arch)]
    return Restricted(space, dict(enumerate(kept)))


def pareto(worse: F, cost: F, most: int, own: int) -> tuple[int, ...]:
    """Up to `most` candidates that no other beats in both, the two ends among them and `own` in any case.

    worse, cost: (candidates,); sorted by cost.
    """
    order = np.lexsort((worse, cost))
    best = np.minimum.accumulate(np.concatenate([[np.inf], worse[order]]))[:-1]
    front = order[worse[order] < best]
    picked = front[np.unique(np.linspace(0, len(front) - 1, min(most, len(front))).round().astype(int))]
    if own not in picked:
        if len(picked) == most and most > 2:  # the inner one nearest in cost makes room
            picked = np.delete(picked, 1 + int(np.argmin(np.abs(cost[picked[1:-1]] - cost[own]))))
        picked = np.append(picked, own)
    return tuple(map(int, picked[np.lexsort((worse[picked], cost[picked]))]))


class Bank(nn.Module):
    """Every kept block once, the fixed pieces between them, and batch norms that all networks share.

    A block's statistics are means over the networks it is met in: `calibrate` with every block as often as any other
    of its slot. supernet: of the space that `kept` restricts. Raises UserError for spaces whose networks are no chains
    with a piece per slot.
    """

    def __init__(self, kept: Restricted, supernet: Any) -> None:
        super().__init__()
        if not kept.local_parts or any(slot.when is not None for slot in kept.slots):
            raise UserError(
                f"blocks of space {kept.base.name!r} depend on one another and cannot be exchanged alone; use a space "
                "such as mobilenet or mobilenetv3."
            )
        self.kept = kept
        self.slots: list[int | None] = []
        self.inputs: list[list[tuple[int, ...]]] = []
        self.pieces = nn.ModuleList()
        for k in range(max(len(slot) for slot in kept.slots)):
            arch = tuple(min(k, len(slot) - 1) for slot in kept.slots)
            network = supernet.extract(kept.lift(arch))
            chain = list(_chain(kept, arch, network))
            for i, (slot, shape, piece) in enumerate(chain):
                if k == 0:
                    self.slots.append(slot)
                    self.inputs.append([shape])
                    self.pieces.append(nn.ModuleList([piece]))
                elif slot is not None and k < len(kept.slots[slot]):
                    self.pieces[i].append(piece)  # type: ignore[operator]

    def modules_on(self, arch: Sequence[int]) -> list[nn.Module]:
        """The pieces of a network, in order."""
        return [
            pieces[0 if slot is None else arch[slot]]  # type: ignore[index]
            for slot, pieces in zip(self.slots, self.pieces)
        ]

    def forward(self, *x: Tensor, path: Path) -> Tensor:
        (y,) = x
        for piece in self.modules_on(path.index):
            y = piece(y)
        return y

    def extract(self, arch: Sequence[int]) -> nn.Module:
        return nn.Sequential(*copy.deepcopy(self.modules_on(self.kept.canonical(arch))))

    def train(self, mode: bool = True) -> Bank:
        """Weights can be trained on; batch norms normalise by what `calibrate` set, as they will when deployed."""
        super().train(mode)
        for norm in self._norms():
            norm.eval()
        return self

    def _norms(self) -> list[nn.modules.batchnorm._BatchNorm]:
        return [m for m in self.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]

    def calibrate(self, batches: Sequence[tuple[Tensor, ...]], *, rounds: int = 4, seed: int = 0) -> None:
        """Set the statistics of all batch norms; every block runs `rounds` times on each of the batches."""
        self.eval()
        for norm in self._norms():
            norm.reset_running_stats()
            norm.momentum = None  # plain mean
            norm.train()
        rng = np.random.default_rng(seed)
        with torch.no_grad():
            for x in batches:
                for arch in _evenly(self.kept, rounds, rng):
                    self(*x, path=Path(arch))
        self.eval()


def _chain(space: SearchSpace, arch: Sequence[int], network: nn.Module) -> Any:
    """(slot, shape of its input, module) of what lies between one slot and the next."""
    parts = space.parts(arch) or []
    joined: list[tuple[int | None, tuple[int, ...], list[nn.Module]]] = []
    for part, module in zip(parts, network.children(), strict=True):
        if joined and joined[-1][0] == part.slot:
            joined[-1][2].append(module)
        else:
            joined.append((part.slot, part.inputs[0], [module]))
    return [(slot, shape, nn.Sequential(*modules)) for slot, shape, modules in joined]


def _evenly(space: SearchSpace, rounds: int, rng: np.random.Generator) -> list[Architecture]:
    """Networks in which every candidate occurs as often as any other of its slot, give or take one."""
    count = rounds * max(len(slot) for slot in space.slots)
    columns = [rng.permutation(np.arange(count) % len(slot)) for slot in space.slots]
    return [tuple(map(int, row)) for row in zip(*columns)]
