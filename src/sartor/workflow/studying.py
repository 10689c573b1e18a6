"""What counts of a network tell of its cost, and what they do not (thesis, Figs. 3.2 and 4.2; shifting, Fig. 3)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from sartor.core import Architecture, F, Json, SearchSpace, Target, UserError
from sartor.targets.measure import measure

if TYPE_CHECKING:
    from sartor.targets.store import Store

INTENSITY = "macs_per_byte"
_TRIES = 20  # draws of as many networks as are wanted


def complexity_study(
    space: SearchSpace, target: Target, networks: int, metrics: Sequence[str], store: Store, seed: int = 0
) -> dict[str, Json]:
    """Multiply-accumulates, parameters, memory access and arithmetic intensity of different networks, drawn uniformly,
    beside what is measured of them; all of a batch as large as the target's.

    `rows`: Kendall's tau of each count and metric, with the 95 % interval of resampled networks; `points`: a list each,
    None for failures. Raises UserError where too few networks run.
    """
    from sartor.quality.order import kendall
    from sartor.spaces.complexity import BYTES, COUNTED, Complexity

    archs = _drawn(space, networks, seed)
    counts: dict[str, F] = {name: Complexity(space, name)(archs) for name in COUNTED}
    weights, batch = BYTES * counts["params"], target.batch  # weights are read once for all of a batch
    counts["mem_access_bytes"] = weights + batch * (counts["mem_access_bytes"] - weights)
    counts["macs"] = batch * counts["macs"]
    counts[INTENSITY] = counts["macs"] / counts["mem_access_bytes"]
    found = measure(space, target, archs, metrics, store)
    values = {
        name: np.array([one.value if one.error is None else np.nan for one in found if one.metric == name])
        for name in metrics
    }
    for name, of in values.items():
        if np.isfinite(of).sum() < 3:
            error = next((one.error for one in found if one.metric == name and one.error is not None), "")
            raise UserError(f"{name} of fewer than three networks was measured ({error}); see `sartor measure`.")
    rows = [
        {"metric": name, "count": count, **kendall(counts[count], values[name])}
        for name, count in product(metrics, counts)
    ]
    every = {name: [float(v) if np.isfinite(v) else None for v in of] for name, of in (counts | values).items()}
    return {
        "space": space.spec(),
        "target": target.id,
        "networks": len(archs),
        "architectures": [list(arch) for arch in archs],
        "rows": rows,
        "points": every,
    }


def _drawn(space: SearchSpace, networks: int, seed: int) -> list[Architecture]:
    if space.size <= networks:
        return list(space.enumerate())
    rng, found = np.random.default_rng([seed, 5]), dict[Architecture, None]()
    for _ in range(_TRIES):
        if len(found) < networks:
            found |= dict.fromkeys(space.sample(rng, networks))
    return list(found)[:networks]
