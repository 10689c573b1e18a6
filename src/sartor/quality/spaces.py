"""What a space is worth, by networks drawn from it: errors at equal cost, how near to a front, how soon one lands.

I. Radosavovic et al., "On Network Design Spaces for Visual Recognition", ICCV 2019, and "Designing Network Design
Spaces", CVPR 2020 (distribution of errors, design principle); M.-F. Hong et al., "Network Space Search", 2021, section
4 (networks are graded by a supernet that is trained for that alone).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sartor.choose.pareto import front
from sartor.core import Architecture, Budget, F
from sartor.spaces.expanded import Expanded

LANDED = 0.10  # share of the limit within which a network has landed (Table 1)
_TRIED, _AT_ONCE = 10**6, 10**4


def distribution(values: F) -> tuple[F, F]:
    """Sorted values (n,) and the share of networks that are as good or better, 1/n to 1; NaN is left out."""
    known = np.sort(values[np.isfinite(values)])
    return known, np.arange(1, len(known) + 1) / len(known)


def draws_to_land(costs: F, budget: Budget) -> float:
    """How many draws it takes on average until one is within 10 % of the limit; infinite where none of these was."""
    share = float(np.mean(np.abs(costs / budget.limit - 1.0) <= LANDED))
    return 1.0 / share if share else np.inf


def beaten(values: F, others: F) -> F:
    """(n,) share of the other networks that are no worse in both columns and better in one; less is better in both."""
    no_worse = (others[None, :, :] <= values[:, None, :]).all(axis=2)
    better = (others[None, :, :] < values[:, None, :]).any(axis=2)
    share: F = (no_worse & better).mean(axis=1)
    return share


def hypervolume(values: F, lowest: F, highest: F) -> float:
    """Share of the box between two corners that a network of (n, 2) values is as good as, or better than."""
    from pymoo.indicators.hv import HV

    scaled = (values - lowest) / (highest - lowest)
    kept = scaled[np.isfinite(scaled).all(axis=1)]
    return float(HV(ref_point=np.ones(2))(kept[front(kept)])) if len(kept) else 0.0


def near(draw: Callable[[int], list[Architecture]], budget: Budget, n: int) -> list[Architecture]:
    """Up to `n` of a million draws that are within 10 % of the limit."""
    found: list[Architecture] = []
    for _ in range(_TRIED // _AT_ONCE):
        some = draw(_AT_ONCE)
        kept = np.abs(budget.score(some) / budget.limit - 1.0) <= LANDED
        found += [arch for arch, ok in zip(some, kept) if ok]
        if len(found) >= n:
            break
    return found[:n]


def principled(space: Expanded, rng: np.random.Generator, n: int) -> list[Architecture]:
    """`n` uniform ones of the networks whose depths and widths do not fall from stage to stage (RegNet's principle)."""
    depths, widths = (_rising(rng, size, space.stages, n) for size in (space.depth, space.width))
    return space.canonical_rows(np.stack([depths, widths], axis=2).reshape(n, -1))


def _rising(rng: np.random.Generator, size: int, count: int, n: int) -> npt.NDArray[np.int64]:
    """(n, count) sequences of 0 to size - 1 that do not fall, each as likely as any other."""
    kept = np.zeros((0, count), dtype=np.int64)
    while len(kept) < n:  # of numbers that differ, in order, less their places
        drawn = np.sort(rng.integers(size + count - 1, size=(n, count)), axis=1)
        kept = np.concatenate([kept, drawn[(np.diff(drawn, axis=1) > 0).all(axis=1)]])
    return kept[:n] - np.arange(count)
