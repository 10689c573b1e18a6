"""Landing on a budget: the most probable architecture whose predicted cost lies where it should, or within it.

Costs with terms are integer programs, solved to proven optimality. Costs without terms (an MLP) are asked about
every single-slot change of an incumbent, which makes an exact linear model around it; that is solved, verified with
the true score, cut and repeated, then improved by true single and double changes. Small spaces are enumerated.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np

from sartor.choose.exact import Limit, Solution, maximise
from sartor.choose.landing import Landing
from sartor.choose.neighbours import linear, single_changes
from sartor.core import Architecture, Budget, F, Landed, Score, SearchSpace, Terms, Unreachable, UserError, show

__all__ = ["Limit", "Solution", "best_within", "check_reachable", "land", "maximise", "reachable"]

logger = logging.getLogger("sartor")
_ENUMERATE = 20_000
_LEAST_LOG = -745.0  # of the smallest positive float64: a probability that underflowed is small, not impossible


# ---------------------------------------------------------------------- what a budget can be


def reachable(space: SearchSpace, score: Score, *, enumerate_below: int = _ENUMERATE) -> tuple[float, float]:
    """Lowest and highest score of the space.

    Exact through terms or, up to `enumerate_below` networks, by enumeration; otherwise by local search from several
    starts, so that the true range may be a little wider.
    """
    terms = score.terms()
    if terms is not None:
        return -maximise(space, terms.times(-1.0)).value, maximise(space, terms).value
    if space.size <= enumerate_below:
        values = score(list(space.enumerate()))
        return float(np.nanmin(values)), float(np.nanmax(values))
    return -_climb(space, score, -1.0), _climb(space, score, 1.0)


def _climb(space: SearchSpace, score: Score, sign: float, starts: int = 3) -> float:
    """Best of `sign` times the score: from the best of a sample, jump where the linear model says, or step."""
    sample = space.sample(np.random.default_rng(0), 256)
    values = np.nan_to_num(sign * score(sample), nan=-np.inf)
    best = -math.inf
    for start in np.argsort(-values, kind="stable")[:starts]:
        arch, value = sample[start], float(values[start])
        while True:
            moves = single_changes(space, arch)
            changed = np.nan_to_num(sign * score(moves), nan=-np.inf)
            jump = maximise(space, linear(space, score, arch).times(sign)).architecture
            if jump is not None:
                moves, changed = [*moves, jump], np.append(changed, np.nan_to_num(sign * score([jump]), nan=-np.inf))
            if not changed.size or changed.max() <= value + 1e-12 * abs(value):
                break
            arch, value = moves[int(np.argmax(changed))], float(changed.max())
        best = max(best, value)
    return best


def check_reachable(space: SearchSpace, budgets: Sequence[Budget], *, bind: bool = True) -> list[tuple[float, float]]:
    """The range of each budget's score. Raises Unreachable when no network can land.

    That is when a limit lies below the range, when an `at` lies above it, or, where one has to `bind`, when every limit
    does; where none has to, a limit above the range is warned of.
    """
    ranges = [reachable(space, b.score) for b in budgets]
    for b, (low, high) in zip(budgets, ranges):
        between = f"{show(low, b.score.metric)} to {show(high, b.score.metric)}"
        if not b.feasible(low):
            raise Unreachable(f"no network meets {b}; space {space.name!r} reaches {between}; raise the limit.")
        if b.sense == "at" and high < b.interval[0] * (1 - 1e-9):
            raise Unreachable(f"no network costs as much as {b}; space {space.name!r} reaches {between}; lower it.")
        if not bind and high < b.interval[0]:
            logger.warning("every network keeps %s, this space reaches %s: the limit decides nothing", b, between)
    if bind and budgets and all(high < b.interval[0] * (1 - 1e-9) for b, (_, high) in zip(budgets, ranges)):
        b, (low, high) = budgets[0], ranges[0]
        raise Unreachable(
            f"every network meets {b}; space {space.name!r} reaches {show(low, b.score.metric)} to "
            f"{show(high, b.score.metric)}; choose a limit within that range."
        )
    return ranges


# ---------------------------------------------------------------------- landing


def land(
    space: SearchSpace,
    log_probability: Sequence[F],
    budgets: Sequence[Budget],
    start: Architecture,
    *,
    rng: np.random.Generator,
    rounds: int = 12,
    seconds: float = 30.0,
    enumerate_below: int = _ENUMERATE,
) -> Landed:
    """The architecture with the largest total log probability among those that land.

    An architecture lands when it respects every limit, lies in the interval of every `at` budget and, where there
    are only `at_most` budgets, in the interval of at least one of them (the one that binds).

    log_probability: a (candidates,) array per slot; start: where the search ended, e.g. its argmax; rng: restarts
    for costs without terms; rounds: solve-and-verify steps for those; seconds: limit for one integer program.
    Status `optimal` is proven, `verified` lands but is not proven best; with `none_found` the architecture is one
    that respects the limits and comes closest to landing, or `start` when none does.
    """
    if not budgets:
        raise UserError("landing needs a budget; give one such as --budget 20ms.")
    reward = [np.maximum(np.asarray(r, dtype=float), _LEAST_LOG) for r in log_probability]
    if [r.shape for r in reward] != [(len(s),) for s in space.slots] or any(np.isnan(r).any() for r in reward):
        raise ValueError("log_probability must hold one number per candidate of every slot")
    landing = Landing(space, Terms(0.0, tuple(reward)), budgets, rng, seconds)
    return _landed(landing, space.canonical(start), rounds, enumerate_below)


def some_within(space: SearchSpace, budgets: Sequence[Budget], rng: np.random.Generator) -> Landed:
    """Some architecture that lands, all choices being as good; where there is none, as `land` says."""
    indifferent = [np.zeros(len(slot)) for slot in space.slots]
    return land(space, indifferent, budgets, start=space.sample(rng, 1)[0], rng=rng)


def standing(arch: Architecture, budgets: Sequence[Budget], status: str) -> Landed:
    """An architecture with its costs; `within` where it is inside every limit, but near none of them."""
    costs = [float(b.score([arch])[0]) for b in budgets]
    lands = not budgets or any(b.lands(cost) for b, cost in zip(budgets, costs))
    return Landed(
        arch,
        {b.score.metric.name: cost for b, cost in zip(budgets, costs)},
        status if lands or status == "none_found" else "within",
    )


def best_within(
    space: SearchSpace,
    reward: Terms,
    budgets: Sequence[Budget],
    *,
    rng: np.random.Generator,
    rounds: int = 12,
    seconds: float = 60.0,
    enumerate_below: int = _ENUMERATE,
) -> Landed:
    """The architecture with the largest reward that respects every limit, however far inside.

    Arguments and status as for `land`; without budgets and with costs that have terms it is proven optimal.
    """
    if not budgets:
        found = maximise(space, reward, seconds=seconds)
        arch = space.sample(rng, 1)[0] if found.architecture is None else found.architecture  # time ran out
        return Landed(arch, {}, "optimal" if found.status == "optimal" else "verified")
    landing = Landing(space, reward, budgets, rng, seconds, bind=False)
    return _landed(landing, space.sample(rng, 1)[0], rounds, enumerate_below)


def _landed(landing: Landing, start: Architecture, rounds: int, enumerate_below: int) -> Landed:
    space, budgets = landing.space, landing.budgets
    terms = [b.score.terms() for b in budgets]
    exact = [t for t in terms if t is not None]
    if len(exact) == len(budgets):
        status = landing.exact(exact)
    elif space.size <= enumerate_below:
        landing.look(list(space.enumerate()))
        status = "optimal" if landing.best is not None else "none_found"
    else:
        status = landing.search(start, rounds)
    arch = next(a for a in (landing.best, landing.closest, start) if a is not None)
    return Landed(arch, {b.score.metric.name: float(b.score([arch])[0]) for b in budgets}, status)
