"""The integer program behind exact choices where candidates interact: one candidate per slot, two-sided limits.

    maximise    sum_i,k r_ik x_ik + sum_(i,j),k,l R_ijkl y_ijkl          x binary, 0 <= y <= 1
    subject to  sum_k x_ik = 1                                          a slot that always exists
                sum_k x_ik = sum_(k in when) x_pk                       one that hangs on choices of slot p
                sum_l y_ijkl = x_ik,  sum_k y_ijkl = x_jl               y = x_ik x_jl, both slots always exist
                sum_l y_ijkl <= x_ik, sum_k y_ijkl <= x_jl,
                y_ijkl >= x_ik + x_jl - 1                               the same, otherwise
                low <= costs of the same form <= high                   a row per limit
                sum_i x_i,a(i) <= slots of a - 1                        an architecture a that is not wanted

Without products these are Eq. 9 - 11 of MathNAS, with any number of budgets. Solved by HiGHS.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from sartor.core import Architecture, F, SearchSpace, Terms

_SPREAD = 1e3
Status: TypeAlias = Literal["optimal", "infeasible", "open"]
"""Proven, proven that there is none, or the best so far when time ran out, if any."""


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
        """low <= terms <= high, terms without constant and denominator."""
        weights = self.weights(terms)
        # the solver's tolerances are absolute: bring every row to the size of one
        scale = np.abs(weights).max(initial=0.0) or 1.0
        self.add({int(c): weights[c] / scale for c in np.flatnonzero(weights)}, low / scale, high / scale)

    def exclude(self, arch: Architecture) -> None:
        """Cut one architecture off."""
        chosen = [self.space.offsets[i] + arch[i] for i, on in enumerate(self.space.active(arch)) if on]
        self.add(dict.fromkeys(chosen, 1.0), -np.inf, len(chosen) - 1.0)

    def solve(
        self, reward: Terms, seconds: float, never: npt.NDArray[np.bool_] | None = None
    ) -> tuple[Architecture | None, Status, float]:
        """The choice with the largest polynomial; (architecture, status, bound on the polynomial).

        Columns of weight -inf are forbidden; never: (columns of candidates,) true where a better one is always there.
        """
        from scipy import sparse  # half a second, and methods are configured without solving
        from scipy.optimize import Bounds, LinearConstraint, milp

        weights = self.weights(reward)
        if never is not None:
            weights[: never.size][never] = -np.inf
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
            hopeless = found.status == 2 or (found.status == 4 and "unbounded" in found.message.lower())
            return None, "infeasible" if hopeless else "open", np.inf
        picks = [int(np.argmax(found.x[a:b])) for a, b in zip(self.space.offsets, self.space.offsets[1:])]
        bound = -float(found.mip_dual_bound) / scale if found.mip_dual_bound is not None else np.inf
        return self.space.canonical(picks), "optimal" if found.status == 0 else "open", reward.const + bound
