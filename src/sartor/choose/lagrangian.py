"""Exact choices where costs and reward are sums over slots: Lagrangian bounds, then everything within the gap.

Prices on the limits make a bound: no choice within all limits is better than the best choice at those prices. The best
prices come from Kelley's cutting planes. At them every candidate has a reduced cost, zero for the best of its slot, and
a choice cannot beat the bound by more than the sum of what it gives away. So we enumerate all choices that give away at
most delta, slot by slot, list merged with list, with delta growing until something within the limits is found that is
no worse than the bound by more than delta: nothing unseen can be better, and that is a proof. Candidates that give away
too much never enter a list, which is why thousands a slot cost little; the few that remain are merged smallest first.

How many choices a delta admits is known before they are made, from convolved histograms of the reduced costs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from sartor.choose.program import Status
from sartor.core import Architecture, F, SearchSpace, Terms

Index: TypeAlias = npt.NDArray[np.int64]
Row: TypeAlias = tuple[Terms, float, float, float]
"""Unary terms without constant, their lowest and highest value, and the rounding that is forgiven."""
MOST = 100  # choices looked at, for each candidate there is; beyond that an integer program is as quick
_FIRST, _STEP = 2_000.0, 30.0  # choices that the first delta admits, and how many times more the next one
_BINS, _START, _TRIES = 256, 15, 30
_CUTS = 200
_EXACT = 1e-12
_HOPELESS = 1e-6  # of all that rewards span: far above what rounding makes of the highest price


@dataclass
class _List:
    """Choices of some slots: what each gives away, what it adds to every row, and how to tell what was chosen.

    away: (n,); used: (rows, n); source: candidates of one slot, or two lists with the positions taken of each, or
    several lists one after another.
    """

    away: F
    used: F
    slot: int = -1
    candidate: Index | None = None
    halves: tuple[_List, _List, Index, Index] | None = None
    pieces: list[_List] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.away)

    def sorted(self) -> _List:
        order = np.argsort(self.away, kind="stable")
        return self.take(order)

    def take(self, at: Index) -> _List:
        if self.pieces:
            whole = _List(np.zeros(1), np.zeros((len(self.used), 1)))
            return _List(self.away[at], self.used[:, at], halves=(self, whole, at, np.zeros_like(at)))
        if self.halves is not None:
            left, right, i, j = self.halves
            return _List(self.away[at], self.used[:, at], halves=(left, right, i[at], j[at]))
        chosen = None if self.candidate is None else self.candidate[at]
        return _List(self.away[at], self.used[:, at], self.slot, chosen)

    def trace(self, at: int, into: dict[int, int]) -> None:
        """Write the candidate of every slot of choice `at`."""
        if self.pieces:
            for piece in self.pieces:
                if at < len(piece):
                    return piece.trace(at, into)
                at -= len(piece)
        if self.halves is not None:
            left, right, i, j = self.halves
            left.trace(int(i[at]), into)
            right.trace(int(j[at]), into)
        elif self.candidate is not None:
            into[self.slot] = int(self.candidate[at])
        return None


class Lagrangian:
    """Minimise a sum over slots within rows that are sums over slots; conditional slots count where they exist.

    The cuts are architectures, so they stay valid when the objective changes: Dinkelbach's iteration starts each step
    from all that the steps before have seen.
    """

    def __init__(self, space: SearchSpace, rows: Sequence[Row]) -> None:
        self.space, self.rows = space, rows
        self.low = np.array([low - slack for _, low, _, slack in rows])
        self.high = np.array([high + slack for _, _, high, slack in rows])
        self.unary = [
            np.array([row[0].unary[i] for row in rows], dtype=float).reshape(len(rows), len(slot))
            for i, slot in enumerate(space.slots)
        ]
        self.children: list[list[tuple[int, frozenset[int]]]] = [[] for _ in space.slots]  # and under which candidates
        for i, slot in enumerate(space.slots):
            if slot.when is not None:
                self.children[slot.when[0]].append((i, slot.when[1]))
        self._most = MOST * (sum(len(s) for s in space.slots) + 1_000)
        self._seen: dict[Architecture, F] = {}

    # ------------------------------------------------------------------ bounds

    def _priced(self, cost: Sequence[F], price: F) -> tuple[list[F], list[float]]:
        """Per slot: cost of every candidate at these prices with the best below it, and the lowest of them."""
        total = [c + price @ u for c, u in zip(cost, self.unary)]
        lowest = [0.0] * len(total)
        for i in range(len(total) - 1, -1, -1):
            for child, under in self.children[i]:
                total[i][sorted(under)] += lowest[child]
            lowest[i] = float(total[i].min())
        return total, lowest

    def _leader(self, total: Sequence[F]) -> Architecture:
        return self.space.canonical([int(np.argmin(t)) for t in total])

    def _penalty(self, price: F) -> float:
        """The most that the prices of a choice within the limits can come to."""
        return float(sum(p * (h if p > 0 else low) for p, h, low in zip(price, self.high, self.low) if p))

    def prices(self, cost: Sequence[F], stop: float) -> tuple[F, float, bool]:
        """Prices that make the highest bound, the bound, and whether it proves that nothing is within the limits."""
        n = len(self.rows)
        price, best, bound = np.zeros(n), np.zeros(n), -np.inf
        worst = sum(float(np.max(c, initial=0.0)) for c in cost)
        span = sum(float(np.ptp(c)) for c in cost) or 1.0
        reach = np.array([sum(float(np.ptp(u[k])) for u in self.unary) or 1.0 for k in range(n)])
        most = 1e7 * span / reach
        # an upper and a lower price for every row; one without that limit is not for sale
        caps = [(0.0, m if np.isfinite(h) else 0.0) for m, h in zip(most, self.high)]
        caps += [(0.0, m if np.isfinite(low) else 0.0) for m, low in zip(most, self.low)]
        high, low = (np.where(np.isfinite(x), x, 0.0) for x in (self.high, self.low))
        for _ in range(_CUTS):
            total, lowest = self._priced(cost, price)
            value = sum(low_ for low_, s in zip(lowest, self.space.slots) if s.when is None) - self._penalty(price)
            if value > bound:
                bound, best = value, price
            if bound > worst + _HOPELESS * span:
                return best, bound, True
            arch = self._leader(total)
            fresh = arch not in self._seen
            self._seen[arch] = self._used(arch)
            if not n or (not fresh and price.any()) or time.monotonic() > stop:
                break
            archs = list(self._seen)
            # theta <= cost + price (used - limit), in units in which the numbers are near one
            used = np.stack([self._seen[a] for a in archs])
            costs = np.array([self._sum(cost, a) for a in archs])
            gains = np.hstack([used - high, low - used]) / np.tile(reach, 2)
            ends = np.array([c * r / span for (_, c), r in zip(caps, np.tile(reach, 2))])
            lies, theta = _highest(costs / span, gains, ends)
            if theta is None or theta * span - bound <= _EXACT * max(abs(bound), span):
                break
            both = lies * span / np.tile(reach, 2)
            price = both[:n] - both[n:]
        return best, bound, False

    def _used(self, arch: Architecture) -> F:
        on = self.space.active(arch)
        out = np.zeros(len(self.rows))
        for i, k in enumerate(arch):
            if on[i]:
                out = out + self.unary[i][:, k]
        return out

    def _sum(self, cost: Sequence[F], arch: Architecture) -> float:
        on = self.space.active(arch)
        return float(sum(c[k] for c, k, o in zip(cost, arch, on) if o))

    # ------------------------------------------------------------------ everything within the gap

    def solve(
        self, reward: Terms, seconds: float, exclude: frozenset[Architecture] = frozenset()
    ) -> tuple[Architecture | None, Status, float]:
        """The choice with the largest reward; (architecture, status, bound on the reward).

        reward: unary terms, -inf forbids; exclude: choices not wanted. `open` where time or memory ran out.
        """
        stop = time.monotonic() + seconds
        arch, status, least = self._minimise([-np.asarray(u, dtype=float) for u in reward.unary], exclude, stop)
        return arch, status, reward.const - least

    def _minimise(
        self, cost: Sequence[F], exclude: frozenset[Architecture], stop: float
    ) -> tuple[Architecture | None, Status, float]:
        allowed = [np.isfinite(c) for c in cost]
        finite = [np.where(a, c, 0.0) for a, c in zip(allowed, cost)]
        barred = 1e3 * (sum(float(np.ptp(c)) for c in finite) + 1.0)
        finite = [np.where(a, c, barred) for a, c in zip(allowed, finite)]
        price, bound, hopeless = self.prices(finite, stop)
        if hopeless:
            return None, "infeasible", bound
        total, lowest = self._priced(finite, price)
        away = [np.where(a, t - low, np.inf) for a, t, low in zip(allowed, total, lowest)]
        known: tuple[float, Architecture | None] = (np.inf, None)
        for arch, used in self._seen.items():
            on = self.space.active(arch)
            possible = all(a[k] for a, k, o in zip(allowed, arch, on) if o) and arch not in exclude
            if possible and np.all(used <= self.high) and np.all(used >= self.low):
                known = min(known, (self._sum(finite, arch) - bound, arch), key=lambda pair: pair[0])
        for delta in _admitting(away, self._most):
            delta = min(delta, known[0] * (1 + 1e-9) + 1e-300)
            found = self._within(away, delta, price, exclude, stop)
            if found is None:
                return known[1], "open", bound
            if found[0] < known[0]:
                known = found
            if known[0] <= delta * (1 + 1e-9) + _EXACT * max(1.0, abs(bound)):
                return known[1], "optimal", bound + known[0]
        return (None, "infeasible", np.inf) if known[1] is None else (known[1], "optimal", bound + known[0])

    def _within(
        self,
        away: Sequence[F],
        delta: float,
        price: F,
        exclude: frozenset[Architecture],
        stop: float,
    ) -> tuple[float, Architecture | None] | None:
        """Best of the choices that give away at most delta: (above the bound, choice); None when they are too many."""
        roots = [i for i, s in enumerate(self.space.slots) if s.when is None]
        lists: list[_List] = []
        for i in roots:
            made = self._below(i, away, delta, stop)
            if made is None:
                return None
            lists.append(made)
        while len(lists) > 2:
            lists.sort(key=len)
            merged = _merge(lists[0], lists[1], delta, self._most, stop)
            if merged is None:
                return None
            lists = [merged, *lists[2:]]
        if len(lists) == 1:
            lists.append(_List(np.zeros(1), np.zeros((len(self.rows), 1))))
        return self._join(lists[0], lists[1], delta, price, exclude, stop)

    def _below(self, i: int, away: Sequence[F], delta: float, stop: float) -> _List | None:
        """Choices of slot i and of all that hang on it."""
        near = np.flatnonzero(away[i] <= delta)
        own = _List(away[i][near], self.unary[i][:, near], i, near)
        if not self.children[i]:
            return own.sorted()
        groups: dict[tuple[int, ...], list[int]] = {}
        for at, k in enumerate(near):
            below = tuple(child for child, under in self.children[i] if k in under)
            groups.setdefault(below, []).append(at)
        pieces = []
        for below, members in groups.items():
            piece: _List | None = own.take(np.array(members))
            for child in below:
                lower = self._below(child, away, delta, stop)
                piece = None if lower is None or piece is None else _merge(piece, lower, delta, self._most, stop)
            if piece is None:
                return None
            pieces.append(piece)
        if not pieces:
            return own
        joined = _List(
            np.concatenate([p.away for p in pieces]), np.concatenate([p.used for p in pieces], axis=1), pieces=pieces
        )
        return joined.sorted()

    def _join(
        self,
        left: _List,
        right: _List,
        delta: float,
        price: F,
        exclude: frozenset[Architecture],
        stop: float,
    ) -> tuple[float, Architecture | None] | None:
        """The last merge, without keeping it: only what is within the limits, and of that the best."""
        large, small = (left, right) if len(left) > len(right) else (right, left)
        small = small.sorted()
        penalty, best, winner = self._penalty(price), np.inf, None
        counts = np.searchsorted(small.away, delta - large.away, side="right")
        if int(counts.sum()) > self._most:
            return None
        edges = np.searchsorted(np.cumsum(counts), np.arange(0, counts.sum() + 500_000, 500_000), side="left")
        for a, b in zip(edges, [*edges[1:], len(large)]):
            if time.monotonic() > stop:
                return None
            i, j = _pairs(counts[a:b])
            i = i + a
            used = large.used[:, i] + small.used[:, j]
            ok = np.all((used >= self.low[:, None]) & (used <= self.high[:, None]), axis=0)
            i, j = i[ok], j[ok]
            value = large.away[i] + small.away[j] + penalty - price @ used[:, ok]
            while value.size and value.min() < best:
                at = int(np.argmin(value))
                picks: dict[int, int] = {}
                large.trace(int(i[at]), picks)
                small.trace(int(j[at]), picks)
                arch = self.space.canonical([picks.get(s, 0) for s in range(len(self.space.slots))])
                if arch in exclude:
                    value[at] = np.inf
                else:
                    best, winner = float(value[at]), arch
        return best, winner


def _highest(costs: F, gains: F, ends: F) -> tuple[F, float | None]:
    """Where the lowest of the lines costs + gains x is highest, x from 0 to ends, and how high; None: no answer.

    costs: (lines,); gains: (lines, variables). One variable is solved by hand: that the lowest line is highest at a
    crossing or at an end takes a tenth of the time that a linear program does.
    """
    free = np.flatnonzero(ends > 0)
    x = np.zeros(len(ends))
    if len(free) == 1:
        slope, end = gains[:, free[0]], ends[free[0]]
        with np.errstate(divide="ignore", invalid="ignore"):
            crossing = (costs[:, None] - costs) / (slope - slope[:, None])
        at = np.unique([0.0, end, *crossing[(crossing > 0) & (crossing < end)]])
        lowest = (costs[:, None] + slope[:, None] * at).min(axis=0)
        x[free[0]] = at[int(np.argmax(lowest))]
        return x, float(lowest.max())
    from scipy.optimize import linprog  # half a second, and methods are configured without solving

    cuts = np.hstack([np.ones((len(costs), 1)), -gains])
    bounds = [(None, None), *((0.0, end) for end in ends)]
    found = linprog(np.array([-1.0, *x]), cuts, costs, bounds=bounds, method="highs-ds")
    return (x, None) if found.x is None else (found.x[1:], float(found.x[0]))


def _admitting(away: Sequence[F], most: float) -> Iterator[float]:
    """Deltas that admit more and more choices, up to about so many, then the one that admits all."""
    near = [np.sort(a[np.isfinite(a)]) for a in away]
    everything = sum(float(a[-1]) for a in near if a.size) * (1 + 1e-9)
    steps = np.sort(np.concatenate([a[1:] for a in near] or [np.zeros(0)]))
    delta = float(steps[min(_START, steps.size - 1)]) if steps.size else 0.0
    wanted = _FIRST
    while wanted <= most and 0 < delta < everything:
        # count on a grid, rounding down: the counts are upper bounds
        scale = delta
        for _ in range(_TRIES):
            ways = np.zeros(_BINS + 1)
            ways[0] = 1.0
            for a in near:
                within = a[: np.searchsorted(a, scale, side="right")]
                if within.size > 1:
                    own = np.bincount((within / scale * _BINS).astype(np.int64), minlength=_BINS + 1)
                    ways = np.minimum(np.convolve(ways, own)[: _BINS + 1], 1e30)
            at = int(np.searchsorted(np.cumsum(ways), wanted, side="right")) - 1
            if _BINS // 8 <= at < _BINS:
                break
            scale *= 4.0 if at == _BINS else max(at, 1) / _BINS * 4
        if scale * max(at, 1) / _BINS > delta or wanted == _FIRST:
            delta = scale * max(at, 1) / _BINS
            yield min(delta, everything)
        wanted *= _STEP
    yield everything


def _pairs(counts: Index) -> tuple[Index, Index]:
    """Positions (i, j) with j below counts[i]."""
    i = np.repeat(np.arange(len(counts)), counts)
    return i, np.arange(len(i)) - np.repeat(np.cumsum(counts) - counts, counts)


def _merge(one: _List, other: _List, delta: float, most: float, stop: float) -> _List | None:
    """Every pair that gives away at most delta together; None when they are too many or time is up."""
    large, small = (one, other) if len(one) > len(other) else (other, one)
    small = small.sorted()
    counts = np.searchsorted(small.away, delta - large.away, side="right")
    if int(counts.sum()) > most or time.monotonic() > stop:
        return None
    i, j = _pairs(counts)
    return _List(large.away[i] + small.away[j], large.used[:, i] + small.used[:, j], halves=(large, small, i, j))
