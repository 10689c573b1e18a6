"""A sub-space: fewer candidates in some slots, the same networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sartor.core.errors import UserError
from sartor.core.score import Score, Terms
from sartor.core.space import F, Part, SearchSpace
from sartor.core.task import Path, Supernet
from sartor.core.types import Architecture, Json

if TYPE_CHECKING:
    from torch import Tensor, nn


class Restricted(SearchSpace):
    """`base` with only the candidates in `keep` ({slot: candidate indices}); other slots stay whole."""

    base: SearchSpace
    keep: tuple[tuple[int, ...], ...]

    def __init__(self, base: SearchSpace, keep: Mapping[int, Sequence[int]]) -> None:
        for i in keep:
            if not 0 <= i < len(base.slots):
                raise UserError(f"cannot restrict slot {i}; space {base.name!r} has slots 0 to {len(base.slots) - 1}.")
        try:
            chosen = tuple(tuple(map(int, keep.get(i, range(len(slot))))) for i, slot in enumerate(base.slots))
        except (TypeError, ValueError):
            raise UserError(
                f"cannot keep {dict(keep)!r} of space {base.name!r}; give a list of candidate indices a slot."
            ) from None
        for slot, kept in zip(base.slots, chosen):
            if not kept or len(set(kept)) < len(kept) or not all(0 <= k < len(slot) for k in kept):
                raise UserError(
                    f"slot {slot.name!r} cannot keep candidates {list(kept)}; "
                    f"keep one or more different ones of 0 to {len(slot) - 1}."
                )
        if isinstance(base, Restricted):
            chosen = tuple(tuple(outer[k] for k in kept) for outer, kept in zip(base.keep, chosen))
            base = base.base
        self.base = base
        self.keep = chosen
        self.local_parts, self.chained_parts = base.local_parts, base.chained_parts
        self.optimiser = base.optimiser
        slots = []
        for slot, kept in zip(base.slots, self.keep):
            when = slot.when
            if when is not None:
                when = (when[0], frozenset(j for j, k in enumerate(self.keep[when[0]]) if k in when[1]))
            slots.append(
                replace(
                    slot,
                    candidates=tuple(slot.candidates[k] for k in kept),
                    features=None if slot.features is None else np.asarray(slot.features)[list(kept)],
                    when=when,
                )
            )
        self.slots = tuple(slots)

    def lift(self, arch: Sequence[int]) -> Architecture:
        """The same network as an architecture of the base space."""
        return self.base.canonical(tuple(kept[k] for kept, k in zip(self.keep, self.canonical(arch))))

    def lifts(self, archs: Sequence[Sequence[int]]) -> list[Architecture]:
        """`lift` of many, at once."""
        return lifted(self.base, self.keep, self.canonicals(archs))

    def spec(self) -> dict[str, Json]:
        keep = {str(i): list(k) for i, k in enumerate(self.keep) if k != tuple(range(len(self.base.slots[i])))}
        return {"space": self.base.name, "base": self.base.spec(), "keep": keep}

    def key(self, arch: Sequence[int]) -> str:
        return self.base.key(self.lift(arch))

    @property
    def has_supernet(self) -> bool:
        return self.base.has_supernet

    def scaled(self, width: float) -> SearchSpace:
        return Restricted(self.base.scaled(width), dict(enumerate(self.keep)))

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        return self.base.edges

    def executed(self, gates: Sequence[Any]) -> list[Any] | None:
        wide = []
        for gate, kept, slot in zip(gates, self.keep, self.base.slots):
            like: Any = getattr(gate, "new_tensor", np.asarray)
            place = np.zeros((len(kept), len(slot)))
            place[range(len(kept)), kept] = 1.0
            wide.append(gate @ like(place))
        return self.base.executed(wide)

    def references(self) -> Iterator[tuple[SearchSpace, Architecture]]:
        yield from self.base.references()

    def inputs(self, batch: int, arch: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        return self.base.inputs(batch, None if arch is None else self.lift(arch))

    def network(self, arch: Sequence[int]) -> nn.Module:
        return self.base.network(self.lift(arch))

    def parts(self, arch: Sequence[int]) -> list[Part] | None:
        return self.base.parts(self.lift(arch))

    def counted(self, arch: Sequence[int]) -> list[Part] | None:
        return self.base.counted(self.lift(arch))

    @property
    def counts_add_up(self) -> bool:
        return self.base.counts_add_up

    def count_terms(self, name: str) -> Terms | None:
        terms = self.base.count_terms(name)
        return None if terms is None else terms.among(self.keep)

    def assemble(self, modules: Sequence[nn.Module]) -> nn.Module:
        return self.base.assemble(modules)

    def deploy(self, network: nn.Module) -> nn.Module:
        return self.base.deploy(network)

    def supernet(self) -> Supernet:
        from sartor.core.restricted_supernet import RestrictedSupernet  # needs torch

        return RestrictedSupernet(self, self.base.supernet())

    def lift_path(self, path: Path) -> Path:
        """A path of the base supernet; gates of dropped candidates are zero."""
        if path.gates is None:
            return replace(path, index=self.lift(path.index))
        gates: list[Any] = []
        for gate, kept, slot in zip(path.gates, self.keep, self.base.slots):
            wide = gate.new_zeros(len(slot))
            wide[list(kept)] = gate
            gates.append(wide)
        return replace(path, index=self.lift(path.index), gates=tuple(gates), kept=self.keep)


def lifted(space: SearchSpace, keep: Sequence[Sequence[int]], archs: Sequence[Architecture]) -> list[Architecture]:
    """Architectures of `space` from those that choose among the candidates `keep` of each slot."""
    index = np.array(archs, dtype=np.int64).reshape(len(archs), len(keep))
    rows = [np.asarray(kept)[index[:, i]] for i, kept in enumerate(keep)]
    return space.canonical_rows(np.stack(rows, axis=1))


class Lifted(Score):
    """A score of one space, asked with architectures of another; lift: makes them architectures of the first."""

    def __init__(
        self, score: Score, space: SearchSpace, lift: Callable[[Sequence[Sequence[int]]], list[Architecture]]
    ) -> None:
        self.score, self.space, self.metric, self._lift = score, space, score.metric, lift

    def __call__(self, archs: Sequence[Sequence[int]]) -> F:
        return self.score(self._lift(archs))
