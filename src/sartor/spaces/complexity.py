"""Analytic cost of networks: multiply-accumulates, weights and memory traffic, counted without running anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sartor.core import F, Part, Score, SearchSpace, SoftScore, Terms, UserError, metric

if TYPE_CHECKING:
    from torch import Tensor, nn

COUNTED = ("macs", "params", "mem_access_bytes")
BYTES = 4


def count(module: nn.Module, inputs: Sequence[Tensor]) -> dict[str, float]:
    """Counts of one forward pass of a module on the `meta` device.

    macs: multiply-accumulates of convolutions and matrix products; params: weights of two or more dimensions;
    mem_access_bytes: inputs, weights and outputs of the same operators, at four bytes an element.
    Normalisation, activation, pooling and biases count nothing, as in the papers.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import FlopCounterMode, flop_registry

    class Traffic(TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            if func._overloadpacket in flop_registry:
                touched = [*args, *(out if isinstance(out, tuple | list) else [out])]
                self.elements += sum(t.numel() for t in touched if isinstance(t, torch.Tensor) and t.dim() >= 2)
            return out

    flops, traffic = FlopCounterMode(display=False), Traffic()  # type: ignore[no-untyped-call]
    with torch.no_grad(), flops, traffic:
        module.eval()(*inputs)
    return {
        "macs": flops.get_total_flops() / 2,
        "params": float(sum(p.numel() for p in module.parameters() if p.dim() >= 2)),
        "mem_access_bytes": float(traffic.elements * BYTES),
    }


_COUNTED_PARTS: dict[object, dict[str, float]] = {}  # same key, same computation, whatever space it is from


def count_part(part: Part, batch: int = 1) -> dict[str, float]:
    """Counts of one part, once in the life of the process."""
    import torch

    identity = (part.key, part.inputs, batch)
    if identity not in _COUNTED_PARTS:
        with torch.device("meta"):
            _COUNTED_PARTS[identity] = count(part.make(), [torch.empty(batch, *shape) for shape in part.inputs])
    return _COUNTED_PARTS[identity]


def count_network(space: SearchSpace, arch: Sequence[int]) -> dict[str, float]:
    """Counts of the whole network at batch 1, for spaces without parts."""
    import torch

    inputs = [x.to("meta") for x in space.inputs(1, arch)]
    with torch.device("meta"):
        return count(space.network(arch), inputs)


def part_terms(space: SearchSpace, value: Callable[[Part], float]) -> Terms:
    """Terms of a cost that is a sum over parts; needs `space.counts_add_up`.

    A candidate costs what its parts cost, alone or after each candidate of the slot before; parts of no slot make the
    constant.
    """
    first = (0,) * len(space.slots)
    parts = space.counted(first)
    if space.chained_parts and parts is not None:
        return _chained_terms(space, parts, value)
    if not space.counts_add_up or parts is None:
        raise UserError(
            f"space {space.name!r} has no parts that depend on one choice alone; use a fitted predictor such as ridge."
        )
    const = float(sum(value(p) for p in parts if p.slot is None))
    unary = [np.zeros(len(slot)) for slot in space.slots]
    always = [i for i, slot in enumerate(space.slots) if slot.when is None]
    for k in range(max((len(space.slots[i]) for i in always), default=0)):
        # a network tells of one candidate of every slot
        arch = tuple(min(k, len(slot) - 1) if slot.when is None else 0 for slot in space.slots)
        costs = dict.fromkeys(always, 0.0)
        for part in space.counted(arch) or []:
            if part.slot in costs:
                costs[part.slot] += value(part)
        for i, cost in costs.items():
            unary[i][arch[i]] = cost
    for i, slot in enumerate(space.slots):
        exists = None if slot.when is None else space.enable(first, i)
        for k in range(len(slot) if exists is not None else 0):
            chosen = space.counted((*exists[:i], k, *exists[i + 1 :])) if exists is not None else None
            unary[i][k] = sum(value(p) for p in chosen or [] if p.slot == i)
    return Terms(const, tuple(unary))


def _chained_terms(space: SearchSpace, parts: Sequence[Part], value: Callable[[Part], float]) -> Terms:
    """Of slots that all exist: what a slot costs after each candidate of the one before."""
    sizes = [len(slot) for slot in space.slots]

    def costs(arch: Sequence[int], slot: int) -> float:
        return sum(value(p) for p in space.parts(arch) or [] if p.slot == slot)

    unary = [np.zeros(n) for n in sizes]
    pair: dict[tuple[int, int], F] = {}
    unary[0] = np.array([costs((k, *(0,) * (len(sizes) - 1)), 0) for k in range(sizes[0])])
    for i in range(1, len(sizes)):
        rest = (0,) * (len(sizes) - i - 1)
        head = (0,) * (i - 1)
        pair[i - 1, i] = np.array(
            [[costs((*head, a, b, *rest), i) for b in range(sizes[i])] for a in range(sizes[i - 1])]
        )
    return Terms(float(sum(value(p) for p in parts if p.slot is None)), tuple(unary), pair)


class Complexity(Score):
    """An exact count of every network of a space: `macs`, `params` or `mem_access_bytes`, at batch 1.

    Counted once per part, or per network where the space has no parts. With `space.counts_add_up`, or where the space
    gives its terms, it has terms and is a `SoftScore`. Raises UserError for another name.
    """

    def __new__(cls, space: SearchSpace, name: str = "macs") -> Complexity:
        terms = space.counts_add_up or (name in COUNTED and space.count_terms(name) is not None)
        return super().__new__(_LocalComplexity if cls is Complexity and terms else cls)

    def __init__(self, space: SearchSpace, name: str = "macs") -> None:
        if name not in COUNTED:
            raise UserError(f"cannot count {name!r}; there is {', '.join(COUNTED)}; measure anything else on a target.")
        self.space, self.metric = space, metric(name)
        self._cache: dict[object, float] = {}

    def _part(self, part: Part) -> float:
        return count_part(part)[self.metric.name]

    def _count(self, arch: Sequence[int]) -> float:
        arch = self.space.canonical(arch)
        parts = self.space.counted(arch)
        if parts is not None:
            return sum(map(self._part, parts))
        if arch not in self._cache:
            self._cache[arch] = count_network(self.space, arch)[self.metric.name]
        return self._cache[arch]

    def __call__(self, archs: Sequence[Sequence[int]]) -> F:
        return np.array([self._count(a) for a in archs], dtype=np.float64)


class _LocalComplexity(Complexity, SoftScore):
    """Where costs add up over slots, over neighbours, or as the space says."""

    _terms: Terms | None = None

    def terms(self) -> Terms:
        if self._terms is None:
            self._terms = self.space.count_terms(self.metric.name) or part_terms(self.space, self._part)
        return self._terms

    def __call__(self, archs: Sequence[Sequence[int]]) -> F:
        return self.terms()(self.space, self.space.canonicals(archs))

    def soft(self, gates: tuple[Tensor, ...]) -> Tensor:
        return self.terms().soft(self.space.slots, gates)
