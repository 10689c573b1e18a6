"""The search for an architecture within budgets: one program where costs have terms, solve-verify-cut where not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from sartor.choose.exact import Limit, Solution, maximise
from sartor.choose.neighbours import double_changes, linear, single_changes
from sartor.core import Architecture, Budget, F, SearchSpace, Terms

_MOST_DOUBLES = 4_000
_STALLED = 3


class Landing:
    """Architectures looked at so far: the best that lands and the closest that does not.

    reward: terms, finite; bind: without an `at` budget, one has to bind, or else whatever is within all limits lands;
    seconds: limit for one program.
    """

    def __init__(
        self,
        space: SearchSpace,
        reward: Terms,
        budgets: Sequence[Budget],
        rng: np.random.Generator,
        seconds: float,
        bind: bool = True,
    ) -> None:
        self.space, self.budgets, self.rng, self.seconds = space, budgets, rng, seconds
        self.reward = reward
        self.best: Architecture | None = None
        self.closest: Architecture | None = None
        self._value = -math.inf
        self._distance = math.inf
        self._at = np.array([b.sense == "at" for b in budgets])
        self._bind = bind and not self._at.any()
        # budgets that may be the one to bind: a program each
        self._anchors = list(range(len(budgets))) if self._bind else [0]
        self._low, self._high = (np.array(x) for x in zip(*(b.interval for b in budgets)))
        self._limit = np.array([b.limit for b in budgets])

    def look(self, archs: Sequence[Architecture]) -> F:
        """Score truly, remember the best and the closest; (n,) relative distances from landing, 0 = lands."""
        if not archs:
            return np.zeros(0)
        costs = np.stack([b.score(archs) for b in self.budgets], axis=1)
        fits = np.all([[b.feasible(c) for b, c in zip(self.budgets, row)] for row in costs], axis=1)
        lands = np.array([[b.lands(c) for b, c in zip(self.budgets, row)] for row in costs], dtype=bool)
        good = fits & (lands.any(axis=1) if self._bind else lands[:, self._at].all(axis=1))
        values = np.where(good, self.reward(self.space, archs), -np.inf)
        if values.max() > self._value:
            self.best, self._value = archs[int(np.argmax(values))], float(values.max())
        below = np.maximum(self._low - costs, 0) / self._limit
        above = np.maximum(costs - self._high, 0) / self._limit
        short = below.min(axis=1) if self._bind else below[:, self._at].sum(axis=1)
        away: F = np.where(good, 0.0, np.nan_to_num(above.sum(axis=1) + short, nan=np.inf))
        usable = np.where(fits, away, np.inf)
        if usable.min() < self._distance:
            self.closest, self._distance = archs[int(np.argmin(usable))], float(usable.min())
        return away

    def _solve(
        self, costs: Sequence[Terms], anchor: int, *extra: Limit, exclude: Sequence[Architecture] = ()
    ) -> Solution:
        """The most probable within all limits, budget `anchor` landing."""
        lower = np.where(self._at, self._low, -np.inf)
        lower[anchor] = self._low[anchor] if self._bind else lower[anchor]
        limits = list(zip(costs, map(float, lower), map(float, self._high)))
        return maximise(self.space, self.reward, [*limits, *extra], exclude=exclude, seconds=self.seconds)

    # ------------------------------------------------------------------ costs with terms

    def exact(self, costs: Sequence[Terms]) -> str:
        """Solve to optimality; returns the status, the architecture is `best`."""
        found = [self._solve(costs, anchor) for anchor in self._anchors]
        self.look([f.architecture for f in found if f.architecture is not None])
        if self.best is not None:
            return "optimal" if all(f.status in ("optimal", "infeasible") for f in found) else "verified"
        limits: list[Limit] = [(t, -math.inf, float(high)) for t, high in zip(costs, self._high)]
        near = [maximise(self.space, costs[a], limits, seconds=self.seconds).architecture for a in self._anchors]
        self.look([a for a in near if a is not None])
        return "none_found" if self.best is None else "verified"

    # ------------------------------------------------------------------ costs without terms

    def search(self, start: Architecture, rounds: int) -> str:
        """Descend from `start`, then from samples until something lands, then improve; returns the status."""
        self._descend(start, rounds)
        for _ in range(rounds):
            if self.best is not None:
                break
            if self.closest is not None:
                self.look(self._around(self.closest))
            self._descend(self.space.sample(self.rng, 1)[0], rounds)
        if self.best is None:
            return "none_found"
        before = None
        while before != self.best:
            before = self.best
            gain = linear(self.space, partial(self.reward, self.space), before).unary
            self.look([*single_changes(self.space, before), *double_changes(self.space, before, gain, _MOST_DOUBLES)])
        return "verified"

    def _around(self, arch: Architecture) -> list[Architecture]:
        """Single changes and a sample of double ones, whatever their reward."""
        noise = [self.rng.random(len(s)) for s in self.space.slots]
        return [*single_changes(self.space, arch), *double_changes(self.space, arch, noise, _MOST_DOUBLES)]

    def _descend(self, arch: Architecture, rounds: int) -> None:
        """Linearise, solve, verify, cut, repeat. The step shrinks while the linear model misleads."""
        tried = [arch]
        away = float(self.look([arch])[0])
        radius, stalled = len(self.space.slots), 0
        for _ in range(rounds):
            self.look(single_changes(self.space, arch))
            known = self._value
            costs = [b.score.terms() or linear(self.space, b.score, arch) for b in self.budgets]
            on = self.space.active(arch)
            same = Terms(0.0, tuple(np.eye(len(s))[k] * o for s, k, o in zip(self.space.slots, arch, on)))
            near: Limit = (same, float(sum(on) - radius), math.inf)
            found = [self._solve(costs, a, near, exclude=tried).architecture for a in self._anchors]
            moves = [a for a in found if a is not None]
            if not moves:
                radius *= 2
                stalled += 1
            else:
                distances = self.look(moves)
                tried += moves
                step = int(np.argmin(distances))
                if distances[step] <= away:
                    arch, away = moves[step], float(distances[step])
                if distances[step] > 0:
                    radius = max(radius // 2, 2)
                stalled = stalled + 1 if self.best is not None and self._value <= known else 0
            if stalled >= _STALLED:
                return
