"""How well a score keeps the order of networks: over a whole space, and among its best few (ALGORITHMS 2.5)."""

from __future__ import annotations

import numpy as np

from sartor.core import F

_RESAMPLED = 1000


def kendall(said: F, true: F, *, seed: int = 0) -> dict[str, float | int | None]:
    """Kendall's tau-b between scores (n,) and truth (n,), with the 95 % interval of resampled networks.

    Networks without a number in either are left out. None where either is constant, and where fewer than two are left.
    """
    from scipy.stats import kendalltau

    known = np.isfinite(said) & np.isfinite(true)
    said, true = said[known], true[known]
    count = len(said)
    if count < 2 or not np.ptp(said) or not np.ptp(true):
        return {"tau": None, "low": None, "high": None, "networks": count}
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(count, size=count) for _ in range(_RESAMPLED))
    again = [kendalltau(said[i], true[i]).statistic for i in drawn]
    low, high = np.nanquantile(again, [0.025, 0.975])
    tau = float(kendalltau(said, true).statistic)
    return {"tau": tau, "low": float(low), "high": float(high), "networks": count}
