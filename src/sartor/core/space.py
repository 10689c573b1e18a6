"""The one idea: every system here chooses one candidate per slot."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from sartor.core.errors import UserError
from sartor.core.types import Architecture, Json, Optimiser

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sartor.core.score import Terms
    from sartor.core.task import Supernet

F: TypeAlias = npt.NDArray[np.float64]
SCHEMA = 1


@dataclass(frozen=True)
class Slot:
    """One choice to be made.

    name: unique within the space; candidates: names of the options;
    features: (n, f) description of the options that predictors see (default: identity);
    when: (slot index, candidates): this slot exists only if that earlier slot chose one of those.
    """

    name: str
    candidates: Sequence[str]
    features: F | None = field(default=None, compare=False)
    when: tuple[int, frozenset[int]] | None = None

    def __len__(self) -> int:
        return len(self.candidates)


@dataclass(frozen=True)
class Part:
    """A piece of a network that can be built, measured and exported alone; parts form a chain.

    key: identity of the piece (same key, same computation); slot: the slot it implements, None if fixed;
    make: builds it with fresh weights; inputs: shapes of its inputs without the batch dimension.
    """

    key: str
    slot: int | None
    make: Callable[[], nn.Module]
    inputs: tuple[tuple[int, ...], ...]


class SearchSpace(ABC):
    """A set of architectures and how each becomes a network.

    A concrete space gives `slots`, `spec`, `inputs` and `network`; it adds `parts` when its networks are
    chains of pieces and `supernet` when they can share weights. All else follows from those.
    """

    slots: tuple[Slot, ...]
    presets: tuple[str, ...] = ()
    """Names of ready-made forms, as in NAME:PRESET."""
    local_parts: bool = False
    """True when the part of a slot depends on that slot's choice alone, so that costs counted per part add up."""
    chained_parts: bool = False
    """True when it depends on that slot's choice and the one before, so that such costs are sums over neighbours."""
    optimiser: Optimiser = "sgd"
    """What its networks are trained by unless settings say otherwise; attention wants `adamw`."""

    # ------------------------------------------------------------------ what a space defines

    @abstractmethod
    def spec(self) -> dict[str, Json]:
        """Plain JSON that rebuilds the space in another process; the key `space` names its constructor."""

    @abstractmethod
    def inputs(self, batch: int, arch: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        """Random inputs, batch first; measuring needs no data. arch: matters only where networks differ in theirs."""

    @abstractmethod
    def network(self, arch: Sequence[int]) -> nn.Module:
        """A plain network with fresh weights."""

    def parts(self, arch: Sequence[int]) -> list[Part] | None:
        """The network as a chain of pieces, or None when it is not one."""
        return None

    def counted(self, arch: Sequence[int]) -> list[Part] | None:
        """Parts that the network's costs are counted by: `parts`, or such as make it up without forming a chain."""
        return self.parts(arch)

    @property
    def counts_add_up(self) -> bool:
        """Whether a count of `counted` parts is a sum over slots, or over neighbours."""
        return self.local_parts or self.chained_parts

    def count_terms(self, name: str) -> Terms | None:
        """The exact form of `macs`, `params` or `mem_access_bytes` of spaces whose counts add up in another way."""
        return None

    def assemble(self, modules: Sequence[nn.Module]) -> nn.Module:
        """The network made of already built parts, in the order of `parts`."""
        raise UserError(f"space {self.name!r} has no parts to assemble a network from.")

    def deploy(self, network: nn.Module) -> nn.Module:
        """A copy as it is measured and exported; spaces with batch norms fold them here."""
        return copy.deepcopy(network).eval()

    def supernet(self) -> Supernet:
        """All candidates of all slots with shared weights."""
        raise UserError(f"space {self.name!r} has no supernet; choose a method that only asks for scores.")

    @property
    def has_supernet(self) -> bool:
        """Whether `supernet` gives one."""
        return type(self).supernet is not SearchSpace.supernet

    def scaled(self, width: float) -> SearchSpace:
        """The space with the same slots whose networks are `width` times as wide."""
        raise UserError(f"networks of space {self.name!r} have no width to scale; use a space that has, as mobilenet.")

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """Which slot feeds which, for graph predictors; default: a chain."""
        return tuple((i, i + 1) for i in range(len(self.slots) - 1))

    def executed(self, gates: Sequence[Any]) -> list[Any] | None:
        """What a runtime is left with once it has dropped what no output depends on; None: all that was chosen.

        gates: per slot (..., candidates), one-hot or relaxed, NumPy arrays or tensors. Gives (..., operators) per slot,
        of the same kind and differentiable: the weight of each candidate that does work, zero where it is in vain.
        What is executed costs, but not every runtime drops the rest: predictors see both and find out.
        """
        return None

    def references(self) -> Iterator[tuple[SearchSpace, Architecture]]:
        """Networks that drift can be seen by, best first: those of the middle, the first and the last candidates.

        Spaces made of others give theirs, so that what is measured in either is relative to one and the same.
        """
        for share in (0.5, 0.0, 1.0):
            yield self, self.canonical(tuple(int(share * (len(slot) - 1)) for slot in self.slots))

    # ------------------------------------------------------------------ identity

    @property
    def name(self) -> str:
        return str(self.spec()["space"])

    @cached_property
    def id(self) -> str:
        """Short fingerprint of the specification: equal spaces, equal ids, in every process."""
        return _digest(self.spec())

    def key(self, arch: Sequence[int]) -> str:
        """Identity of the network, also across sub-spaces: two architectures with one key are one network."""
        arch = self.canonical(arch)
        parts = self.parts(arch)
        if parts is not None:
            return _digest([[p.key, p.inputs] for p in parts])
        return _digest([self.spec(), arch])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SearchSpace) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    # ------------------------------------------------------------------ architectures

    @cached_property
    def _children(self) -> tuple[tuple[int, ...], ...]:
        kids: list[list[int]] = [[] for _ in self.slots]
        for i, slot in enumerate(self.slots):
            if slot.when is not None:
                if not 0 <= slot.when[0] < i:
                    raise ValueError(f"slot {slot.name!r} depends on slot {slot.when[0]}, which is not before it")
                kids[slot.when[0]].append(i)
        return tuple(map(tuple, kids))

    @cached_property
    def _counts(self) -> tuple[tuple[int, ...], ...]:
        """Networks below each candidate of each slot, children included (slots with `when` form a forest)."""
        counts: list[tuple[int, ...]] = [()] * len(self.slots)
        for i in reversed(range(len(self.slots))):
            counts[i] = tuple(
                math.prod(sum(counts[c]) for c in self._children[i] if k in self._allowed(c))
                for k in range(len(self.slots[i]))
            )
        return tuple(counts)

    def _allowed(self, slot: int) -> frozenset[int]:
        when = self.slots[slot].when
        return frozenset() if when is None else when[1]

    @cached_property
    def size(self) -> int:
        """Exact number of canonical architectures."""
        return math.prod(sum(self._counts[i]) for i, slot in enumerate(self.slots) if slot.when is None)

    def active(self, arch: Sequence[int]) -> tuple[bool, ...]:
        """Which slots exist in this architecture."""
        on: list[bool] = []
        for slot in self.slots:
            on.append(slot.when is None or (on[slot.when[0]] and arch[slot.when[0]] in slot.when[1]))
        return tuple(on)

    def canonical(self, arch: Sequence[int]) -> Architecture:
        """The architecture with inactive slots at 0. Raises UserError unless it belongs to this space."""
        if len(arch) != len(self.slots):
            raise UserError(
                f"architecture has {len(arch)} entries, space {self.name!r} has {len(self.slots)} slots; "
                "use an architecture made for this space."
            )
        for i, (slot, k) in enumerate(zip(self.slots, arch)):
            if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 0 <= k < len(slot):
                raise UserError(
                    f"entry {i} of the architecture is {k!r}; slot {slot.name!r} takes 0 to {len(slot) - 1} "
                    f"({', '.join(slot.candidates)})."
                )
        return tuple(int(k) if on else 0 for k, on in zip(arch, self.active(arch)))

    def canonicals(self, archs: Sequence[Sequence[int]]) -> list[Architecture]:
        """`canonical` of each, four times as fast."""
        plain = {*map(type, chain.from_iterable(archs))} <= {int} and {*map(len, archs)} <= {len(self.slots)}
        index = np.array(archs).reshape(len(archs), len(self.slots)) if plain else np.zeros((0, 0))
        if not plain or not np.all((index >= 0) & (index < [len(slot) for slot in self.slots])):
            return [self.canonical(arch) for arch in archs]  # says what is wrong
        return self.canonical_rows(np.asarray(index, dtype=np.int64))

    def canonical_rows(self, index: npt.NDArray[np.int64]) -> list[Architecture]:
        """The canonical architectures of (n, slots) candidate indices, which have to be in range."""
        return list(map(tuple, np.where(self.exists(index), index, 0).tolist()))

    def enable(self, arch: Sequence[int], slot: int) -> Architecture | None:
        """The architecture with the fewest earlier choices changed so that `slot` exists; None if it never can."""
        changed = list(self.canonical(arch))
        when = self.slots[slot].when
        while when is not None:
            parent, allowed = when
            if not allowed:
                return None
            if changed[parent] not in allowed or not self.active(changed)[parent]:
                changed[parent] = min(allowed)
            when = self.slots[parent].when
        return self.canonical(changed)

    def sample(
        self, rng: np.random.Generator, n: int, *, uniform_over: Literal["networks", "choices"] = "networks"
    ) -> list[Architecture]:
        """`n` independent canonical architectures.

        uniform_over: `networks` draws every architecture with equal probability; `choices` draws every
        candidate of an existing slot with equal probability (so every depth is equally frequent).
        The two agree where no slot is conditional.
        """
        draws = rng.random((n, len(self.slots)))
        picks = np.zeros(draws.shape, dtype=np.int64)
        for i in range(len(self.slots)):
            counts, total = self._counts[i], sum(self._counts[i])
            share = [c / total if uniform_over == "networks" else 1 / len(counts) for c in counts]
            picks[:, i] = np.minimum(np.searchsorted(np.cumsum(share), draws[:, i], side="right"), len(counts) - 1)
        return self.canonical_rows(picks)

    def sample_wide(self, rng: np.random.Generator, n: int) -> list[Architecture]:
        """`n` architectures whose costs reach further than a uniform sample's, for fitting predictors.

        Each draws its own preference among candidates, Dirichlet(1/2), and then its slots by it: networks of nearly
        all skips or all large blocks appear, which uniform draws over many slots never show.
        """
        width = max(len(slot) for slot in self.slots)
        out = []
        for _ in range(n):
            preference = rng.dirichlet(np.full(width, 0.5)) + 1e-6
            draws = rng.random(len(self.slots))
            picks = []
            for slot, draw in zip(self.slots, draws):
                cumulative = np.cumsum(preference[: len(slot)])
                picks.append(
                    int(np.searchsorted(cumulative, draw * cumulative[-1], side="right").clip(0, len(slot) - 1))
                )
            out.append(self.canonical(picks))
        return out

    def enumerate(self) -> Iterator[Architecture]:
        """Every canonical architecture once, in lexicographic order."""

        def extend(head: list[int], on: list[bool]) -> Iterator[Architecture]:
            i = len(head)
            if i == len(self.slots):
                yield tuple(head)
                return
            when = self.slots[i].when
            exists = when is None or (on[when[0]] and head[when[0]] in when[1])
            for k in range(len(self.slots[i]) if exists else 1):
                yield from extend([*head, k], [*on, exists])

        return extend([], [])

    # ------------------------------------------------------------------ encodings

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """First column of each slot in `one_hot`, and the number of columns as the last entry."""
        ends = np.cumsum([0] + [len(s) for s in self.slots])
        return tuple(map(int, ends))

    def one_hot(self, archs: Sequence[Sequence[int]]) -> F:
        """(n, total candidates) float64; the row block of an inactive slot is all zero."""
        out = np.zeros((len(archs), self.offsets[-1]))
        index, rows = np.asarray(archs, dtype=np.int64).reshape(len(archs), len(self.slots)), np.arange(len(archs))
        for i, on in enumerate(self.exists(index).T):
            out[rows[on], self.offsets[i] + index[on, i]] = 1.0
        return out

    def encode(self, archs: Sequence[Sequence[int]], columns: F) -> F:
        """one_hot(archs) @ columns, (n,) or (n, m), from columns (total candidates,) or (total candidates, m).

        The one-hot rows of thousands of candidates a slot are never written out.
        """
        index = np.asarray(archs, dtype=np.int64).reshape(len(archs), len(self.slots))
        out = np.zeros((len(archs), *columns.shape[1:]))
        for i, on in enumerate(self.exists(index).T):
            out[on] += columns[self.offsets[i] + index[on, i]]
        return out

    def exists(self, index: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """`active` of many: (n, slots) candidate indices to (n, slots)."""
        on = np.ones(index.shape, dtype=np.bool_)
        for i, slot in enumerate(self.slots):
            if slot.when is not None:
                parent, allowed = slot.when
                on[:, i] = on[:, parent] & np.isin(index[:, parent], sorted(allowed))
        return on

    @cached_property
    def feature_map(self) -> F:
        """(total candidates, features): one-hot rows times this are what predictors see."""
        blocks = [np.eye(len(s)) if s.features is None else np.asarray(s.features, float) for s in self.slots]
        out = np.zeros((self.offsets[-1], sum(b.shape[1] for b in blocks)))
        column = 0
        for start, block in zip(self.offsets, blocks):
            out[start : start + block.shape[0], column : column + block.shape[1]] = block
            column += block.shape[1]
        return out

    # ------------------------------------------------------------------ JSON

    def to_json(self, arch: Sequence[int]) -> dict[str, Json]:
        """The architecture with its space and the chosen candidates by name."""
        arch = self.canonical(arch)
        chosen = {s.name: s.candidates[k] for s, k, on in zip(self.slots, arch, self.active(arch)) if on}
        return {"schema": SCHEMA, "space": self.spec(), "architecture": list(arch), "choices": chosen}

    def from_json(self, data: Json) -> Architecture:
        """Read what `to_json` wrote. Raises UserError for another space, length or index."""
        if not isinstance(data, dict) or not {"schema", "space", "architecture"} <= data.keys():
            raise UserError("not an architecture file: it needs schema, space and architecture; write it with sartor.")
        if data["schema"] != SCHEMA:
            raise UserError(
                f"architecture file has schema {data['schema']!r}, this version reads {SCHEMA}; rewrite it."
            )
        if _digest(data["space"]) != self.id:
            raise UserError(
                f"architecture belongs to space {json.dumps(data['space'])}, not to {json.dumps(self.spec())}; "
                "give the space it was made for."
            )
        if not isinstance(data["architecture"], list):
            raise UserError("the architecture must be a list of candidate indices, one a slot.")
        return self.canonical(data["architecture"])

    # ------------------------------------------------------------------ sub-spaces

    def restrict(self, keep: Mapping[int, Sequence[int]]) -> SearchSpace:
        """The sub-space that keeps only those candidates (by index) of those slots."""
        from sartor.core.restricted import Restricted

        return Restricted(self, keep)


def _digest(data: Json) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]
