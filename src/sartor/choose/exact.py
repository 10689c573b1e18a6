"""One candidate per slot, exactly: any polynomial or ratio as reward, any number of limits, conditional slots.

Sums over slots are solved by Lagrangian bounds and enumeration of the gap (`lagrangian`), which does not mind thousands
of candidates a slot; where candidates interact, small spaces are enumerated and large ones are integer programs
(`program`, HiGHS). Ratios are maximised by Dinkelbach's iteration, each step a problem without denominator.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from sartor.choose.lagrangian import Lagrangian, Row
from sartor.choose.program import Program, Status
from sartor.core import Architecture, F, SearchSpace, Terms

Limit: TypeAlias = tuple[Terms, float, float]
"""Terms with the lowest and highest value allowed; infinite where there is no limit."""
ENUMERATE = 20_000
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Solution:
    """What was found.

    status: `optimal` (proven), `feasible` (best so far when time ran out), `infeasible` (proven: there is none) or
    `unknown` (time ran out first); value: of the reward; gap: how much better an unseen one could be at most,
    relative to the value (0 when optimal, infinite when unknown).
    """

    architecture: Architecture | None
    status: Literal["optimal", "feasible", "infeasible", "unknown"]
    value: float
    gap: float


def maximise(
    space: SearchSpace,
    reward: Sequence[F] | Terms,
    limits: Sequence[Limit] = (),
    *,
    exclude: Sequence[Architecture] = (),
    seconds: float = 60.0,
    enumerate_below: int = ENUMERATE,
) -> Solution:
    """The architecture with the largest reward within all limits.

    reward: a (candidates,) array per slot (-inf forbids a candidate), or terms; limits: (terms, low, high), any
    form of terms, denominators positive; exclude: architectures not wanted; seconds: time limit altogether;
    enumerate_below: spaces up to this size are enumerated where candidates interact.

    A ratio p(x) / q(x), q > 0, by W. Dinkelbach, "On Nonlinear Fractional Programming", Management Science 13, 1967:
    from t = 0 on, x maximises p(x) - t q(x), and t becomes p(x) / q(x), until it grows no more; then the maximum of
    p - t q is 0, and no ratio is above t.
    """
    terms = _terms(reward)
    exclude = [space.canonical(arch) for arch in exclude]
    pairs: dict[tuple[int, int], Any] = {}
    for polynomial in [terms, *(t for t, _, _ in limits)]:
        pairs |= {**polynomial.pair, **(polynomial.over.pair if polynomial.over else {})}
    if not space.slots or (pairs and space.size <= enumerate_below):
        return enumerated(space, terms, limits, exclude=exclude)
    steps = _Steps(space, limits, exclude, pairs, time.monotonic() + seconds)
    if terms.over is None:
        return steps.solve(terms, terms)
    best, quotient = _none("unknown"), 0.0
    while True:
        found = steps.solve(_parametric(terms, terms.over, quotient), terms)
        if found.architecture is None:
            return found if best.architecture is None else Solution(best.architecture, "feasible", best.value, np.inf)
        if best.architecture is not None and found.value <= best.value + _ROUNDING * abs(best.value):
            if found.status == "optimal":  # nothing has a larger ratio than this quotient
                return Solution(best.architecture, "optimal", best.value, 0.0)
            return Solution(best.architecture, "feasible", best.value, np.inf)
        best, quotient = found, found.value


def enumerated(
    space: SearchSpace,
    reward: Sequence[F] | Terms,
    limits: Sequence[Limit] = (),
    *,
    exclude: Sequence[Architecture] = (),
) -> Solution:
    """The same by looking at every architecture."""
    terms, archs = _terms(reward), list(space.enumerate())
    good = np.ones(len(archs), dtype=bool)
    for limit, low, high in limits:
        values = limit(space, archs)
        slack = _slack(limit, values)
        good &= (low - slack <= values) & (values <= high + slack)
    unwanted = set(map(space.canonical, exclude))
    values = np.where(good & [a not in unwanted for a in archs], terms(space, archs), -np.inf)
    at = int(np.argmax(values))
    return _none("infeasible") if np.isneginf(values[at]) else Solution(archs[at], "optimal", float(values[at]), 0.0)


def top(
    space: SearchSpace, reward: Sequence[F] | Terms, limits: Sequence[Limit] = (), *, k: int, seconds: float = 60.0
) -> list[Solution]:
    """The k best, best first; fewer where there are no more, or where time runs out."""
    found: list[Solution] = []
    stop = time.monotonic() + seconds
    while len(found) < k:
        known = [s.architecture for s in found if s.architecture is not None]
        one = maximise(space, reward, limits, exclude=known, seconds=stop - time.monotonic())
        if one.architecture is None:
            break
        found.append(one)
        if one.status != "optimal":
            break
    return found


def front(
    space: SearchSpace,
    reward: Sequence[F] | Terms,
    cost: Terms,
    limits: Sequence[Limit] = (),
    *,
    step: float = 0.0,
    seconds: float = 60.0,
) -> Iterator[Solution]:
    """Every architecture that no other beats in reward without costing more, from the dearest down.

    step: how much cheaper the next one has to be, 0 for the whole front; seconds: for one of them. Where several have
    the same reward, the cheapest of them is given.
    """
    high, scale, terms = np.inf, abs(cost.const), _terms(reward)
    while True:
        best = maximise(space, reward, [*limits, (cost, -np.inf, high)], seconds=seconds)
        if best.architecture is None:
            return
        slack = 1e-9 * max(abs(best.value), 1e-300)
        same: list[Limit] = [*limits, (_allowing(terms), best.value - slack, np.inf), (cost, -np.inf, high)]
        cheapest = maximise(space, cost.times(-1.0), same, seconds=seconds)
        arch = best.architecture if cheapest.architecture is None else cheapest.architecture
        spent = float(cost(space, [arch])[0])
        yield Solution(arch, best.status, float(terms(space, [arch])[0]), best.gap)
        scale = max(scale, abs(spent))
        high = spent - max(step, 4e-9 * scale, 1e-300)


# ---------------------------------------------------------------------- steps


class _Steps:
    """Problems without denominators on the same limits: by Lagrangian bounds, or as a program where those do not do."""

    def __init__(
        self,
        space: SearchSpace,
        limits: Sequence[Limit],
        exclude: Sequence[Architecture],
        pairs: dict[tuple[int, int], Any],
        stop: float,
    ) -> None:
        self.space, self.limits, self.exclude, self.stop = space, limits, list(exclude), stop
        self.rows = [row for limit in limits for row in _cleared(*limit)]
        self.pairs = pairs
        self._bounds = None if pairs else Lagrangian(space, self.rows)
        self._program: Program | None = None

    def solve(self, polynomial: Terms, reward: Terms) -> Solution:
        """The best by the polynomial, valued by the reward; what only rounding lets pass is cut."""
        while True:
            arch, status, bound = self._step(polynomial)
            if arch is None:
                return _none("infeasible" if status == "infeasible" else "unknown")
            if inside(self.space, arch, self.limits):
                break
            self.exclude.append(arch)
            if self._program is not None:
                self._program.exclude(arch)
        value = float(reward(self.space, [arch])[0])
        if status == "optimal":
            return Solution(arch, "optimal", value, 0.0)
        if reward.over is not None:
            return Solution(arch, "feasible", value, np.inf)
        return Solution(arch, "feasible", value, max(bound - value, 0.0) / max(abs(value), 1e-300))

    def _step(self, polynomial: Terms) -> tuple[Architecture | None, Status, float]:
        known: tuple[Architecture | None, Status, float] = (None, "open", np.inf)
        if self._bounds is not None:
            known = self._bounds.solve(polynomial, max(self.stop - time.monotonic(), 0.01), frozenset(self.exclude))
            if known[1] != "open" or self.stop - time.monotonic() < 0.01:
                return known
        if self._program is None:
            self._program = Program(self.space, self.pairs)
            for terms, low, high, _ in self.rows:
                self._program.limit(terms, low, high)
            for arch in self.exclude:
                self._program.exclude(arch)
        never = None if self.exclude else np.concatenate(dominated(self.space, polynomial, self.rows))
        found = self._program.solve(polynomial, max(self.stop - time.monotonic(), 0.01), never)
        if found[1] != "open" or known[0] is None:
            return found
        if found[0] is None:
            return known
        best = max((known[0], found[0]), key=lambda arch: float(polynomial(self.space, [arch])[0]))
        return best, "open", min(known[2], found[2])


def dominated(space: SearchSpace, reward: Terms, rows: Sequence[Row]) -> list[npt.NDArray[np.bool_]]:
    """Per slot (candidates,): true where another candidate is no worse in anything, so that it need never be chosen.

    Anything is the reward, every limit that is finite, alone and with every candidate of another slot; candidates that
    other slots hang on are only compared where the same slots do.
    """
    out = []
    signed = [(reward, -1.0)]
    signed += [(terms, 1.0) for terms, _, high, _ in rows if np.isfinite(high)]
    signed += [(terms, -1.0) for terms, low, _, _ in rows if np.isfinite(low)]
    for i, slot in enumerate(space.slots):
        columns: list[F] = []
        for terms, sign in signed:
            columns.append(sign * np.asarray(terms.unary[i], dtype=float)[:, None])
            for (a, b), table in terms.pair.items():
                if i in (a, b):
                    columns.append(sign * (np.asarray(table) if i == a else np.asarray(table).T))
        for child in space.slots:
            if child.when is not None and child.when[0] == i:
                has = np.array([float(k in child.when[1]) for k in range(len(slot))])[:, None]
                columns += [has, -has]
        worse = np.hstack(columns)
        order = np.lexsort((np.arange(len(slot)), worse.sum(axis=1)))
        kept: list[int] = []
        never = np.zeros(len(slot), dtype=bool)
        for k in order:
            never[k] = bool(kept) and bool(np.any(np.all(worse[kept] <= worse[k], axis=1)))
            if not never[k]:
                kept.append(int(k))
        out.append(never)
    return out


def _allowing(terms: Terms) -> Terms:
    """The same with a value for candidates that are forbidden, too low for any choice that has one."""
    finite = [np.where(np.isfinite(u), u, 0.0) for u in terms.unary]
    low = -10.0 * (sum(float(np.abs(u).max(initial=0.0)) for u in finite) + abs(terms.const) + 1.0)
    low -= 10.0 * sum(float(np.abs(table).max()) for table in terms.pair.values())
    unary = tuple(np.where(np.isneginf(u), low, u) for u in terms.unary)
    return Terms(terms.const, unary, terms.pair, terms.over)


def _cleared(terms: Terms, low: float, high: float) -> list[Row]:
    """A limit as rows without constant and denominator; a ratio's denominator must be positive."""
    if terms.over is None:
        slack = _ROUNDING * max(abs(terms.const), *(abs(x) for x in (low, high) if np.isfinite(x)), 1e-300)
        return [(terms, low - terms.const, high - terms.const, slack)]
    rows: list[Row] = []
    for at, lower in ((low, True), (high, False)):
        if np.isfinite(at):
            row = _parametric(terms, terms.over, at)
            slack = _ROUNDING * max(abs(row.const), abs(terms.const), abs(at * terms.over.const), 1e-300)
            rows.append((row, -row.const if lower else -np.inf, np.inf if lower else -row.const, slack))
    return rows


def _parametric(terms: Terms, under: Terms, quotient: float) -> Terms:
    """terms - quotient under, without the denominator of terms."""
    unary = tuple(np.asarray(a, dtype=float) - quotient * np.asarray(b) for a, b in zip(terms.unary, under.unary))
    pair = {key: np.asarray(table, dtype=float) for key, table in terms.pair.items()}
    for key, table in under.pair.items():
        pair[key] = pair.get(key, 0.0) - quotient * np.asarray(table, dtype=float)
    return Terms(terms.const - quotient * under.const, unary, pair)


def inside(space: SearchSpace, arch: Architecture, limits: Sequence[Limit]) -> bool:
    """Whether the architecture holds every limit, up to rounding."""
    for terms, low, high in limits:
        value = terms(space, [arch])
        slack = _slack(terms, value)
        if not np.all((low - slack <= value) & (value <= high + slack)):
            return False
    return True


def _slack(terms: Terms, values: F) -> F:
    return _ROUNDING * np.maximum(np.abs(values), max(abs(terms.const), 1e-300))


def _terms(reward: Sequence[F] | Terms) -> Terms:
    terms = reward if isinstance(reward, Terms) else Terms(0.0, tuple(np.asarray(r, dtype=float) for r in reward))
    if any(np.isnan(u).any() or np.isposinf(u).any() for u in terms.unary):
        raise ValueError("rewards must be numbers below infinity")
    return terms


def _none(status: Literal["infeasible", "unknown"]) -> Solution:
    return Solution(None, status, float("nan"), float("inf"))
