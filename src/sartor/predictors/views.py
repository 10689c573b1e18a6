"""What graph and kernel predictors see of an architecture: features of each slot, as chosen and as executed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from sartor.core import F, SearchSpace

if TYPE_CHECKING:
    from torch import Tensor

View: TypeAlias = list[Any]
"""Per slot (..., features), arrays or tensors."""


def views(space: SearchSpace, archs: Sequence[Sequence[int]]) -> list[View]:
    """Of canonical architectures, per slot (n, features): first as chosen, then, where the space tells, as executed."""
    index = np.asarray(archs, dtype=np.int64).reshape(len(archs), len(space.slots))
    exist = space.exists(index)
    chosen = [block[index[:, i]] * exist[:, i : i + 1] for i, block in enumerate(feature_blocks(space))]
    if space.executed([np.zeros((0, len(slot))) for slot in space.slots]) is None:
        return [chosen]
    rows = space.one_hot(archs)
    return [chosen, space.executed([rows[:, a:b] for a, b in pairwise(space.offsets)]) or []]


def soft_views(space: SearchSpace, gates: Sequence[Tensor]) -> list[View]:
    """The same of gates, per slot (features,), differentiable; slots that may not exist weigh their chance to."""
    from sartor.core.score import active_gates

    exist = active_gates(space.slots, gates)
    chosen = [gate @ gate.new_tensor(block) for gate, block in zip(exist, feature_blocks(space))]
    executed = space.executed(exist)
    return [chosen] if executed is None else [chosen, executed]


def feature_blocks(space: SearchSpace) -> list[F]:
    """Per slot (candidates, features): columns divided by their largest size, so that no unit dominates."""
    blocks = [np.eye(len(s)) if s.features is None else np.asarray(s.features, np.float64) for s in space.slots]
    largest = [np.abs(block).max(axis=0, initial=0.0) for block in blocks]
    return [block / np.where(top > 0, top, 1.0) for block, top in zip(blocks, largest)]
