"""What a space is worth, by networks drawn from it: errors at equal cost, how near to a front, how soon one lands.

I. Radosavovic et al., "On Network Design Spaces for Visual Recognition", ICCV 2019, and "Designing Network Design
Spaces", CVPR 2020 (distribution of errors, design principle); M.-F. Hong et al., "Network Space Search", 2021, section
4 (networks are graded by a supernet that is trained for that alone).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from sartor.choose.pareto import front
from sartor.core import Architecture, Budget, F, UserError
from sartor.spaces.expanded import Expanded

LANDED = 0.10  # share of the limit within which a network has landed (Table 1)
_TRIED = 10**6


def distribution(values: F) -> tuple[F, F]:
    """Sorted values (n,) and the share of networks that are as good or better, 1/n to 1; NaN is left out."""
    known = np.sort(values[np.isfinite(values)])
    return known, np.arange(1, len(known) + 1) / len(known)


def landed(costs: F, budget: Budget) -> float:
    """Share of the networks whose cost is within 10 % of the limit."""
    return float(np.mean(np.abs(costs / budget.limit - 1.0) <= LANDED))


def draws_to_land(costs: F, budget: Budget) -> float:
    """How many draws it takes on average until one is within 10 % of the limit; infinite where none of these was."""
    share = landed(costs, budget)
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


def principled(space: Expanded, rng: np.random.Generator, n: int, budget: Budget | None = None) -> list[Architecture]:
    """`n` random networks whose depths and widths do not fall from stage to stage (the design principle of RegNet).

    budget: only those within 10 % of its limit. Raises UserError where a million draws give too few.
    """
    found: list[Architecture] = []
    for _ in range(_TRIED // 1000):
        drawn = space.sample(rng, 1000)
        if budget is not None:
            near = np.abs(budget.score(drawn) / budget.limit - 1.0) <= LANDED
            drawn = [arch for arch, ok in zip(drawn, near) if ok]
        found += [arch for arch in drawn if _rising(arch[::2]) and _rising(arch[1::2])]
        if len(found) >= n:
            return found[:n]
    raise UserError(f"of a million random networks {len(found)} follow the principle at that cost; ask for fewer.")


def _rising(sizes: Sequence[int]) -> bool:
    return all(a <= b for a, b in pairwise(sizes))
