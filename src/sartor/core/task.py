"""What networks are for: data with a loss and a metric, and networks that share weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

from sartor.core.types import Architecture
from sartor.core.units import Metric

if TYPE_CHECKING:
    from torch import Tensor, nn

Batch: TypeAlias = "tuple[tuple[Tensor, ...], Tensor]"
"""Inputs of the network (each batch first) and the targets."""
Split: TypeAlias = Literal["train", "valid", "trainvalid", "test"]
"""Roles: `train` fits weights and `valid` guides choices during a search (disjoint parts of the training data);
`trainvalid`, both, trains a found network; `test` is held out and no method may read it."""


Around: TypeAlias = "Callable[[int, Tensor, Tensor], Tensor]"
"""Slot, input and (gated) output of its chosen candidate; what is returned goes on instead of the output."""


@dataclass(frozen=True)
class Path:
    """One network inside a supernet.

    index: a candidate per slot; gates: per slot a (candidates,) tensor, one-hot in value and differentiable, whose
    chosen entry multiplies the output of the chosen candidate (a supernet of masks takes them all), or None to run
    plain; around: called wherever a slot's candidate has run, of a cell once as its last slot, for methods that add
    something to it (never where slots are sizes of layers); mixed: run every candidate of every slot and add them up,
    weighed by the gates (DARTS), for supernets that say `mixes`; kept: per slot those that then run, None: all.
    """

    index: Architecture
    gates: tuple[Tensor, ...] | None = None
    around: Around | None = None
    mixed: bool = False
    kept: tuple[tuple[int, ...], ...] | None = None

    def run(self, slot: int, x: Tensor, candidates: Sequence[Callable[[Tensor], Tensor]]) -> Tensor:
        """What a slot makes of `x`."""
        chosen = self.index[slot]
        if self.gates is None:
            output = candidates[chosen](x)
        elif self.mixed:
            kept = range(len(candidates)) if self.kept is None else self.kept[slot]
            output = sum((self.gates[slot][k] * candidates[k](x) for k in kept), start=x.new_zeros(()))
        else:
            output = candidates[chosen](x) * self.gates[slot][chosen]
        return output if self.around is None else self.around(slot, x, output)


@runtime_checkable
class Supernet(Protocol):
    """An nn.Module that holds every candidate once; the path is an argument, never state."""

    def __call__(self, *x: Tensor, path: Path) -> Tensor: ...
    def extract(self, arch: Sequence[int]) -> nn.Module:
        """A stand-alone network of the space with a copy of the path's weights."""
        ...


class Task(Protocol):
    """Data, loss and metric. Same (split, size, seed, epoch), same batches in the same order."""

    metric: Metric
    device: Any

    def describe(self) -> dict[str, Any]:
        """JSON that identifies data and splits, for run directories."""
        ...

    def length(self, split: Split) -> int:
        """Number of examples in a split."""
        ...

    def batches(
        self, split: Split, *, size: int, seed: int, epoch: int, limit: int | None = None, plain: bool = False
    ) -> Iterable[Batch]:
        """Batches of one epoch: shuffled and augmented for `train` and `trainvalid`, in one fixed order otherwise.

        limit: at most that many batches; plain: neither shuffled nor augmented, whatever the split.
        """
        ...

    def loss(self, net: Callable[..., Tensor], batch: Batch) -> Tensor:
        """Scalar training loss, mean over the batch."""
        ...

    def evaluate(self, net: Callable[..., Tensor], split: Split, *, limit: int | None = None) -> Mapping[str, float]:
        """Means over a split: `loss` and the task's metric. Sets no mode: the caller does."""
        ...
