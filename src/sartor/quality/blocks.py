"""Block tables: what each candidate loses or saves against a reference, measured once, predicts every network.

Q. Wang, S. Cao et al., "MathNAS: If Blocks Have a Role in Mathematical Architecture Design", NeurIPS 2023.

    b_ij   = mean over contexts c of [ score(c with slot i at its reference) - score(c with slot i at j) ]    Eq. 3, 7
    Lat(N) = Lat(base) - sum_i b_i,Ji                                                                          Eq. 4
    Acc(N) = Acc(base) - sum_i b_i,Ji F_ij / F(N)                                                              Eq. 5

The base network has the reference, the candidate with most MACs, in every slot; so b is 0 there, and positive where
accuracy is lost or latency saved. F(N) are the MACs of the whole network, stem and head included: F_ij, their mean over
the networks with candidate j in slot i, the base's candidates in what hangs on it (`per_block`), the mean over all
networks (`global`, Eq. 6), or those of the context in which j was measured (`context`). Contexts are all networks
(full), some at random (partial), or one, whose every slot has the candidate of average MACs (Algorithm 1): then
sum(n_i) - m + 2 networks are asked about in all.

Where we are wider than the paper: a slot that exists only under an earlier choice is measured after the fewest earlier
changes that make it exist, other slots that come to exist by them having the candidate of average MACs, and counts only
where it exists; a slot that others hang on is measured with the base's candidates in those. The number of networks that
are asked about is another one then. Every form is exact terms, so that `choose.exact` searches it: an additive one, or
a ratio of two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np

from sartor.choose.neighbours import linear
from sartor.core import Architecture, F, Score, SearchSpace, Terms, TermScore, UserError
from sartor.spaces.complexity import Complexity

Macs: TypeAlias = Literal["per_block", "global", "context", "none"]
"""What scales a difference with F(N) in the accuracy predictor."""


def base_network(space: SearchSpace, macs: Terms) -> Architecture:
    """The network of the largest candidate in every slot; of equals the last, so that the deepest is the base."""
    mean = _below(space, macs)
    return space.canonical([len(m) - 1 - int(np.argmax(m[::-1])) for m in mean])


def average_network(space: SearchSpace, macs: Terms) -> Architecture:
    """The network whose every slot has the candidate with MACs closest to the slot's mean, of equals the first."""
    return space.canonical(_average(space, macs))


def _average(space: SearchSpace, macs: Terms) -> Architecture:
    """Of each slot, also of those that its choices leave out."""
    return tuple(int(np.argmin(np.abs(m - m.mean()))) for m in _below(space, macs))


def _below(space: SearchSpace, macs: Terms) -> list[F]:
    """Per slot: MACs of each candidate with the mean over its neighbours and of what comes to exist by it."""
    total = [np.array(u, dtype=float) for u in _adds_up(space, macs).unary]
    for (i, j), table in macs.pair.items():
        total[i] += np.mean(table, axis=1)
        total[j] += np.mean(table, axis=0)
    for i in range(len(space.slots) - 1, -1, -1):
        when = space.slots[i].when
        if when is not None:
            total[when[0]][sorted(when[1])] += total[i].mean()
    return total


def additive_macs(space: SearchSpace) -> Terms:
    """Multiply-accumulates as terms that add up over slots or over neighbours, stem and head included.

    Where the space has none, the sum of what single changes do, if that is what 64 random networks have. Raises
    UserError where it is not.
    """
    counted = Complexity(space, "macs")
    terms = counted.terms()
    if terms is None:
        terms = linear(space, counted, space.canonical((0,) * len(space.slots)))
        drawn = space.sample(np.random.default_rng(0), 64)
        if not np.allclose(terms(space, drawn), counted(drawn), rtol=1e-9):
            raise _not_additive()
    return _adds_up(space, terms)


def _adds_up(space: SearchSpace, macs: Terms) -> Terms:
    if macs.over is not None or (macs.pair and any(slot.when is not None for slot in space.slots)):
        raise _not_additive()
    return macs


def _not_additive() -> UserError:
    return UserError(
        "block tables need MACs that add up over slots, and those of this space do not; "
        "give --set macs=none, or --set predictor=estimate."
    )


# ---------------------------------------------------------------------- measuring


def differences(
    space: SearchSpace,
    score: Score,
    base: Architecture,
    contexts: Sequence[Architecture],
    usual: Architecture | None = None,
) -> tuple[float, list[F]]:
    """(score of the base network, b): b has (candidates,) per slot, 0 at the base's candidate.

    usual: of each slot, the candidate where a context has no such slot; default the first. Each different network is
    asked about once. A context in which one side failed is left out; a candidate that no context tells of is NaN.
    """
    asked: dict[Architecture, int] = {base: 0}
    usual = usual or (0,) * len(space.slots)
    places = [
        [[asked.setdefault(a, len(asked)) for a in row] for row in _measured(space, base, contexts, usual, i)]
        for i in range(len(space.slots))
    ]
    values = score(list(asked))
    lost = []
    for i, (slot, rows) in enumerate(zip(space.slots, places)):
        at = values[np.array(rows, dtype=int).reshape(len(rows), len(slot))]
        gaps = at[:, [_reference(space, base, i)]] - at
        known = np.isfinite(gaps)
        count = known.sum(axis=0)
        mean = np.where(known, gaps, 0.0).sum(axis=0) / np.maximum(count, 1)
        lost.append(np.where(count > 0, mean, np.nan) if rows else np.zeros(len(slot)))
    return float(values[0]), lost


def _measured(
    space: SearchSpace, base: Architecture, contexts: Sequence[Architecture], usual: Architecture, slot: int
) -> list[list[Architecture]]:
    """Per context in which the slot can exist: the networks with each of its candidates.

    What hangs on the slot, which its choice may take away, has the base's candidates; what the context has not, and
    comes to exist by what the slot needs, the usual ones.
    """
    fixed = {i: _reference(space, base, i) for i in _hanging(space, slot)}
    needed, when = set[int](), space.slots[slot].when
    while when is not None:
        needed.add(when[0])
        when = space.slots[when[0]].when
    out = []
    for context in contexts:
        exists = space.enable(context, slot)
        if exists is not None:
            had = space.active(context)
            whole = [fixed.get(i, k if had[i] or i in needed else usual[i]) for i, k in enumerate(exists)]
            row = [space.canonical((*whole[:slot], j, *whole[slot + 1 :])) for j in range(len(space.slots[slot]))]
            out.append(row)
    return out


def _hanging(space: SearchSpace, slot: int) -> list[int]:
    """Slots that exist only under choices of this one, or of what hangs on it."""
    below = {slot}
    for i, other in enumerate(space.slots):
        if other.when is not None and other.when[0] in below:
            below.add(i)
    return sorted(below - {slot})


def _reference(space: SearchSpace, base: Architecture, slot: int) -> int:
    """The base's candidate; where the base has no such slot, that of the base with it."""
    exists = space.enable(base, slot)
    return 0 if exists is None else exists[slot]


# ---------------------------------------------------------------------- predicting


def block_score(
    space: SearchSpace,
    score: Score,
    macs: Terms,
    *,
    contexts: Sequence[Architecture] | None = None,
    base: Architecture | None = None,
    mode: Macs = "none",
) -> TermScore:
    """A score as block tables predict it; asks `score` about the networks that the tables need.

    macs: of the space, as `additive_macs` has them; contexts: where differences are measured, default the average
    network alone (Algorithm 1); base: default the network of largest blocks; mode: `none` for what adds up, as latency
    and energy; `per_block` is the published predictor of accuracy, `global` its search objective (Eq. 6).
    Raises UserError where the score knows none of what is needed.
    """
    base = base_network(space, macs) if base is None else space.canonical(base)  # Algorithm 1, step 3
    contexts = [average_network(space, macs)] if contexts is None else list(contexts)
    usual = _average(space, macs)
    value, lost = differences(space, score, base, contexts, usual)  # step 2
    if not np.isfinite(value) or any(np.isnan(b).any() for b in lost):
        raise UserError(
            f"{score.metric.name} of the base network, or of a block in every context, is unknown; block tables need "
            "both: grade every network (a table without missing rows), or estimate (predictor=estimate, mathnas)."
        )
    if mode == "none":
        return TermScore(space, score.metric, Terms(value, tuple(-b for b in lost)))
    macs = _adds_up(space, macs)
    scale = _scales(space, macs, base, contexts, usual, mode)
    # step 4: Acc(N) = (Acc(base) F(N) - sum b F_ij) / F(N)
    unary = tuple(value * np.asarray(f) - b * s for f, b, s in zip(macs.unary, lost, scale))
    return TermScore(space, score.metric, Terms(value * macs.const, unary, macs.times(value).pair, over=macs))


def _scales(
    space: SearchSpace,
    macs: Terms,
    base: Architecture,
    contexts: Sequence[Architecture],
    usual: Architecture,
    mode: Macs,
) -> list[F]:
    """Per slot (candidates,): the MACs that a difference was measured at."""
    sizes = [len(slot) for slot in space.slots]
    if mode == "global":
        return [np.full(n, _expected(space, macs)) for n in sizes]
    if mode == "per_block":
        return [np.array([_expected(space, macs, i, j, base) for j in range(n)]) for i, n in enumerate(sizes)]
    out = []
    for i, n in enumerate(sizes):
        archs = [arch for row in _measured(space, base, contexts, usual, i) for arch in row]
        out.append(macs(space, archs).reshape(-1, n).mean(axis=0) if archs else np.zeros(n))
    return out


def _expected(
    space: SearchSpace, macs: Terms, slot: int | None = None, candidate: int = 0, base: Architecture = ()
) -> float:
    """Mean MACs with candidates drawn uniformly and independently, one of them fixed and existing.

    What hangs on it has the base's candidates, as where its difference was measured.
    """
    chance = [np.full(len(s), 1.0 / len(s)) for s in space.slots]
    if slot is not None:
        chance[slot] = np.eye(len(space.slots[slot]))[candidate]
        when = space.slots[slot].when
        while when is not None:
            allowed = sorted(when[1])
            chance[when[0]] = np.zeros(len(space.slots[when[0]]))
            chance[when[0]][allowed] = 1.0 / max(len(allowed), 1)
            when = space.slots[when[0]].when
        for i in _hanging(space, slot):
            chance[i] = np.eye(len(space.slots[i]))[_reference(space, base, i)]
    exists: list[float] = []
    total = macs.const
    for s, p, own in zip(space.slots, chance, macs.unary):
        exists.append(1.0 if s.when is None else exists[s.when[0]] * float(chance[s.when[0]][sorted(s.when[1])].sum()))
        total += exists[-1] * float(p @ own)
    return total + sum(float(chance[i] @ np.asarray(table) @ chance[j]) for (i, j), table in macs.pair.items())
