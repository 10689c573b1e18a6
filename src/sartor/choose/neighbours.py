"""Architectures one or two choices away, and the linear model that single changes make."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sartor.core import Architecture, F, SearchSpace, Terms


def single_changes(space: SearchSpace, arch: Architecture) -> list[Architecture]:
    """Every architecture that differs by the choice of one existing slot (and what hangs on it)."""
    (changes,) = changes_of(space, [arch])
    return changes


def changes_of(space: SearchSpace, archs: Sequence[Architecture]) -> list[list[Architecture]]:
    """`single_changes` of each."""
    index = np.array(archs, dtype=np.int64).reshape(len(archs), len(space.slots))
    slot = np.array([i for i, s in enumerate(space.slots) for _ in range(len(s))], dtype=np.int64)
    candidate = np.array([k for s in space.slots for k in range(len(s))], dtype=np.int64)
    differs = (candidate != index[:, slot]) & space.exists(index)[:, slot]
    which, move = np.nonzero(differs)
    changed = index[which]
    changed[np.arange(len(which)), slot[move]] = candidate[move]
    rows, ends = space.canonical_rows(changed), np.cumsum(differs.sum(axis=1))
    return [rows[end - count : end] for end, count in zip(ends, differs.sum(axis=1))]


def double_changes(space: SearchSpace, arch: Architecture, gain: Sequence[F], most: int) -> list[Architecture]:
    """Up to `most` architectures two choices away, those of the largest positive gain first.

    gain: a (candidates,) array per slot; what changes along with a choice that others hang on is not counted.
    """
    on = space.active(arch)
    moves = [(i, k) for i, s in enumerate(space.slots) for k in range(len(s) if on[i] else 0) if k != arch[i]]
    if not moves:
        return []
    slot = np.array([i for i, _ in moves])
    gains = np.array([gain[i][k] - gain[i][arch[i]] for i, k in moves])
    first, second = np.nonzero((slot[:, None] < slot[None, :]) & (gains[:, None] + gains[None, :] > 0))
    order = np.argsort(-(gains[first] + gains[second]), kind="stable")[:most]
    out = []
    for a, b in zip(first[order], second[order]):
        changed = list(arch)
        for i, k in (moves[a], moves[b]):
            changed[i] = k
        out.append(space.canonical(changed))
    return list(dict.fromkeys(out))


def linear(space: SearchSpace, score: Callable[[Sequence[Architecture]], F], arch: Architecture) -> Terms:
    """Unary terms that equal the score at `arch` and at every single change of it.

    A slot that does not exist in `arch` is varied after the fewest earlier changes that make it exist.
    """
    archs: list[Architecture] = [arch]
    blocks: list[tuple[int, int]] = []
    for i, slot in enumerate(space.slots):
        exists = space.enable(arch, i)
        if exists is None:
            blocks.append((0, 0))
            continue
        # the same order as the candidates, behind the choice they are compared with
        blocks.append((len(archs), len(slot)))
        archs += [exists, *(space.canonical((*exists[:i], k, *exists[i + 1 :])) for k in range(len(slot)))]
    values = score(archs)
    unary = [
        values[start + 1 : start + 1 + n] - values[start] if n else np.zeros(len(slot))
        for (start, n), slot in zip(blocks, space.slots)
    ]
    return Terms(float(values[0]), tuple(np.nan_to_num(u) for u in unary))
