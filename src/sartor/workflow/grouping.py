"""Devices that agree about which network is faster need one search between them (thesis Definition 3.1, 3.4.2.1).

The definition asks for LAT_1 = gamma LAT_2 over all networks, which no two measurements satisfy. Here two devices agree
when a line through the origin explains one by the other, in both directions, with R^2 of at least .98, and Kendall's
tau is at least .9. Agreement does not carry over (a with b and b with c says nothing of a with c), so a group holds
devices that agree with each other, all of them; each device joins the first group that it fits, in the order given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sartor.core import F, Json, SearchSpace, Target, UserError
from sartor.tables import Table
from sartor.targets.measure import measure
from sartor.targets.store import Store
from sartor.workflow.measuring import design

LEAST_R2, LEAST_TAU, LEAST_NETWORKS = 0.98, 0.9, 10


def group_devices(names: Sequence[str], values: F) -> dict[str, Json]:
    """Which devices agree, from costs (networks, devices) of the same networks; rows with NaN are left out.

    Returns `devices`, `networks` (rows used), (devices, devices) matrices `gamma` (cost of the row's device over the
    column's), `r2` (the worse direction) and `kendall`, and `groups` of device names. Raises UserError where fewer
    than two devices or ten networks are left.
    """
    from scipy.stats import kendalltau

    known = values[np.isfinite(values).all(axis=1)]
    if len(names) < 2 or len(known) < LEAST_NETWORKS:
        raise UserError(
            f"there are {len(known)} networks with costs on all of {len(names)} devices; grouping needs at least "
            f"{LEAST_NETWORKS} networks on two devices: measure more of them, or leave a device out."
        )
    n = len(names)
    gamma, r2, tau = np.ones((n, n)), np.ones((n, n)), np.ones((n, n))
    for i in range(n):
        for j in range(n):
            a, b = known[:, i], known[:, j]
            gamma[i, j] = a @ b / (b @ b)
            r2[i, j] = 1.0 - np.mean((a - gamma[i, j] * b) ** 2) / max(float(a.var()), 1e-300)
            tau[i, j] = tau[j, i] if j < i else kendalltau(a, b).statistic
    r2 = np.minimum(r2, r2.T)
    agree = (r2 >= LEAST_R2) & (tau >= LEAST_TAU)
    groups: list[list[int]] = []
    for i in range(n):
        home = next((group for group in groups if agree[i, group].all()), None)
        if home is None:
            groups.append([i])
        else:
            home.append(i)
    return {
        "devices": list(names),
        "networks": len(known),
        "gamma": gamma.tolist(),
        "r2": r2.tolist(),
        "kendall": tau.tolist(),
        "groups": [[names[i] for i in group] for group in groups],
    }


def measured_devices(
    space: SearchSpace, targets: Sequence[Target], samples: int, store: Store, seed: int = 0
) -> tuple[list[str], F]:
    """Latency of the same sample of networks on every target: ids, and (networks, targets) in ms, NaN for failures."""
    archs = design(space, samples, seed)
    columns = [[one.value for one in measure(space, t, archs, ["latency_ms"], store)] for t in targets]
    return [t.id for t in targets], np.array(columns, dtype=np.float64).T


def tabled_devices(table: Table, columns: Sequence[str] | None = None) -> tuple[list[str], F]:
    """The devices of a table: names of its columns, and their values (rows, columns).

    columns: which ones; None takes every latency that is known of at least half of the rows. Raises UserError for
    unknown ones.
    """

    def latency(name: str) -> bool:
        try:
            return table.score(name).metric.name == "latency_ms"
        except UserError:
            return False

    names = list(columns or ())
    if columns is None:
        names = [c for c, v in table.columns.items() if latency(c) and np.isfinite(v).mean() >= 0.5]
    found: list[Any] = [table.score(name).values for name in names]
    return names, np.array(found, dtype=np.float64).T
