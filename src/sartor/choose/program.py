"""The integer program behind exact choices: one candidate per slot, any number of two-sided limits.

A variable per candidate; the candidates of a slot sum to one, or to "the slot exists" where it hangs on another.
Products of two choices become continuous variables, ratios are cleared of their denominator. Solved by HiGHS.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from sartor.core import Architecture, F, SearchSpace, Terms

Limit: TypeAlias = tuple[Terms, float, float]
"""Terms with the lowest and highest value allowed; infinite where there is no limit."""
_ROUNDING = 1e-9
_SPREAD = 1e3
_INFEASIBLE = 2  # in scipy's numbering


@dataclass(frozen=True)
class Solution:
    """What the program found.

    status: `optimal` (proven), `feasible` (best so far when time ran out), `infeasible` (proven: there is none) or
    `unknown` (time ran out first); value: of the reward; gap: how much better an unseen one could be at most,
    relative to the value (0 when optimal, infinite when unknown).
    """

    architecture: Architecture | None
    status: Literal["optimal", "feasible", "infeasible", "unknown"]
    value: float
    gap: float


@contextmanager
def quiet_stdout() -> Iterator[None]:
    """Send what C code prints to stdout to stderr: HiGHS chats on hard instances and stdout carries results."""
    sys.stdout.flush()
    saved = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        ctypes.CDLL(None).fflush(None)
        os.dup2(saved, 1)
        os.close(saved)


class Program:
    """Rows and columns over the candidates of a space; `solve` maximises a polynomial without denominator."""

    def __init__(self, space: SearchSpace, pairs: Mapping[tuple[int, int], Any]) -> None:
        self.space = space
        self.first: dict[tuple[int, int], int] = {}
        self.columns = space.offsets[-1]
        for i, j in pairs:
            self.first[i, j] = self.columns
            self.columns += len(space.slots[i]) * len(space.slots[j])
        self._rows: list[dict[int, float]] = []
        self._low: list[float] = []
        self._high: list[float] = []
        for i, slot in enumerate(space.slots):
            row = dict.fromkeys(self._of(i), 1.0)
            if slot.when is not None:
                row |= {space.offsets[slot.when[0]] + k: -1.0 for k in slot.when[1]}
            exists = float(slot.when is None)
            self.add(row, exists, exists)
        for i, j in pairs:
            self._link(i, j)

    def _of(self, slot: int) -> range:
        return range(self.space.offsets[slot], self.space.offsets[slot + 1])

    def _link(self, i: int, j: int) -> None:
        """Make each column of the pair the product of its two choices."""
        slots, start = self.space.slots, self.first[i, j]
        always = slots[i].when is None and slots[j].when is None
        columns = start + np.arange(len(slots[i]) * len(slots[j])).reshape(len(slots[i]), len(slots[j]))
        for x, products in [*zip(self._of(i), columns), *zip(self._of(j), columns.T)]:
            self.add({**dict.fromkeys(map(int, products), 1.0), x: -1.0}, 0.0 if always else -np.inf, 0.0)
        if not always:
            for x, products in zip(self._of(i), columns):
                for y, product in zip(self._of(j), products):
                    self.add({int(product): 1.0, x: -1.0, y: -1.0}, -1.0, np.inf)

    def add(self, row: Mapping[int, float], low: float, high: float) -> None:
        self._rows.append(dict(row))
        self._low.append(low)
        self._high.append(high)

    def weights(self, terms: Terms) -> F:
        """(columns,) coefficients of the polynomial, without its constant and denominator."""
        out = np.zeros(self.columns)
        for i, values in enumerate(terms.unary):
            out[list(self._of(i))] = values
        for (i, j), table in terms.pair.items():
            start = self.first[i, j]
            out[start : start + table.size] += np.asarray(table, dtype=float).ravel()
        return out

    def limit(self, terms: Terms, low: float, high: float) -> None:
        """low <= terms <= high; a ratio's denominator must be positive."""
        if terms.over is None:
            self._limit(self.weights(terms), low - terms.const, high - terms.const)
            return
        top, under = self.weights(terms), self.weights(terms.over)
        if np.isfinite(low):
            self._limit(top - low * under, low * terms.over.const - terms.const, np.inf)
        if np.isfinite(high):
            self._limit(top - high * under, -np.inf, high * terms.over.const - terms.const)

    def _limit(self, weights: F, low: float, high: float) -> None:
        # the solver's tolerances are absolute: bring every row to the size of one
        scale = np.abs(weights).max(initial=0.0) or 1.0
        self.add({int(c): weights[c] / scale for c in np.flatnonzero(weights)}, low / scale, high / scale)

    def exclude(self, arch: Architecture) -> None:
        """Cut one architecture off."""
        chosen = [self.space.offsets[i] + arch[i] for i, on in enumerate(self.space.active(arch)) if on]
        self.add(dict.fromkeys(chosen, 1.0), -np.inf, len(chosen) - 1.0)

    def solve(self, weights: F, seconds: float) -> tuple[Architecture | None, int, float]:
        """The choice with the largest weights; (architecture, status of scipy's milp, bound on the weights).

        Columns of weight -inf are forbidden.
        """
        from scipy import sparse  # half a second, and methods are configured without solving
        from scipy.optimize import Bounds, LinearConstraint, milp

        forbidden = np.isneginf(weights)
        finite = np.where(forbidden, 0.0, weights)
        # its optimality gap of 1e-6 is absolute too
        scale = _SPREAD / (np.abs(finite).max(initial=0.0) or 1.0)
        count = [len(row) for row in self._rows]
        matrix = sparse.csr_array(
            (
                np.array([v for row in self._rows for v in row.values()], dtype=float),
                np.array([c for row in self._rows for c in row], dtype=np.int32),
                np.cumsum([0, *count], dtype=np.int32),
            ),
            shape=(len(self._rows), self.columns),
        )
        integrality = np.zeros(self.columns, dtype=np.int64)
        integrality[: self.space.offsets[-1]] = 1
        with quiet_stdout():
            found = milp(
                -finite * scale,
                constraints=LinearConstraint(matrix, np.array(self._low), np.array(self._high)),
                integrality=integrality,
                bounds=Bounds(0.0, np.where(forbidden, 0.0, 1.0)),
                options={"mip_rel_gap": 0.0, "time_limit": seconds},
            )
        if found.x is None:
            # every column is bounded, so "unbounded or infeasible" (reported as 4) is infeasible
            hopeless = found.status == 4 and "unbounded" in found.message.lower()
            return None, _INFEASIBLE if hopeless else int(found.status), np.inf
        picks = [int(np.argmax(found.x[a:b])) for a, b in zip(self.space.offsets, self.space.offsets[1:])]
        bound = -float(found.mip_dual_bound) / scale if found.mip_dual_bound is not None else np.inf
        return self.space.canonical(picks), int(found.status), bound


def inside(space: SearchSpace, arch: Architecture, limits: Sequence[Limit]) -> bool:
    """Whether the architecture holds every limit, up to rounding."""
    for terms, low, high in limits:
        value = float(terms(space, [arch])[0])
        slack = _ROUNDING * max(abs(value), abs(terms.const), 1e-300)
        if not low - slack <= value <= high + slack:
            return False
    return True


def maximise(
    space: SearchSpace,
    reward: Sequence[F] | Terms,
    limits: Sequence[Limit] = (),
    *,
    exclude: Sequence[Architecture] = (),
    seconds: float = 60.0,
) -> Solution:
    """The architecture with the largest reward within all limits.

    reward: a (candidates,) array per slot (-inf forbids a candidate), or terms; limits: (terms, low, high), any
    form of terms, denominators positive; exclude: architectures not wanted; seconds: time limit altogether.
    A reward that is a ratio is maximised by Dinkelbach's iteration, each step a program of its own.
    """
    terms = reward if isinstance(reward, Terms) else Terms(0.0, tuple(np.asarray(r, dtype=float) for r in reward))
    if any(np.isnan(u).any() or np.isposinf(u).any() for u in terms.unary):
        raise ValueError("rewards must be numbers below infinity")
    if not space.slots:
        fits = () not in exclude and inside(space, (), limits)
        return Solution((), "optimal", float(terms(space, [()])[0]), 0.0) if fits else _none("infeasible")
    polynomials = [terms, *(t for t, _, _ in limits)]
    pairs: dict[tuple[int, int], Any] = {}
    for t in [*polynomials, *(t.over for t in polynomials if t.over is not None)]:
        pairs |= t.pair
    program = Program(space, pairs)
    for limit in limits:
        program.limit(*limit)
    for arch in exclude:
        program.exclude(space.canonical(arch))
    stop = time.monotonic() + seconds
    if terms.over is None:
        return _solve(program, terms, program.weights(terms), limits, stop)
    top, under, quotient = program.weights(terms), program.weights(terms.over), 0.0
    best = _none("unknown")
    while True:
        found = _solve(program, terms, top - quotient * under, limits, stop)
        if found.architecture is None:
            return found if best.architecture is None else Solution(best.architecture, "feasible", best.value, np.inf)
        if best.architecture is not None and found.value <= best.value + _ROUNDING * abs(best.value):
            return best if found.status == "optimal" else Solution(best.architecture, "feasible", best.value, np.inf)
        best, quotient = found, found.value


def _solve(program: Program, terms: Terms, weights: F, limits: Sequence[Limit], stop: float) -> Solution:
    """Solve, and cut what only the solver's tolerance lets pass."""
    space = program.space
    while True:
        arch, status, bound = program.solve(weights, max(stop - time.monotonic(), 0.01))
        if arch is None:
            return _none("infeasible" if status == _INFEASIBLE else "unknown")
        if inside(space, arch, limits):
            break
        program.exclude(arch)
    value = float(terms(space, [arch])[0])
    if status == 0:
        return Solution(arch, "optimal", value, 0.0)
    if terms.over is not None:
        return Solution(arch, "feasible", value, np.inf)
    return Solution(arch, "feasible", value, max(bound + terms.const - value, 0.0) / max(abs(value), 1e-300))


def _none(status: Literal["infeasible", "unknown"]) -> Solution:
    return Solution(None, status, float("nan"), float("inf"))
