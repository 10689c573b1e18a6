"""What keeps the layers of a network from being faster: arithmetic or memory (thesis 3.3.6, Fig. 3.3).

S. Williams, A. Waterman, D. Patterson, "Roofline: An Insightful Visual Performance Model for Multicore
Architectures", CACM 2009. Both roofs are measured on the target with networks of one operator (`spaces.probes`), the
layers one by one, each as a network of its own. Small layers read from a cache, so the bandwidth of a cache is a roof
of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sartor.core import Json, SearchSpace, Target, UserError
from sartor.spaces.complexity import count_part
from sartor.spaces.parts import Parts
from sartor.spaces.probes import Probes
from sartor.targets.measure import measure
from sartor.targets.store import Store


def roofline(space: SearchSpace, arch: Sequence[int], target: Target, store: Store) -> dict[str, Json]:
    """Roofs of the target, in GMACs/s and GB/s, and where each layer of a network lies under them.

    `layers`: name, times it occurs, macs, bytes, latency_ms, intensity (MACs/byte), rate (GMACs/s). Raises UserError
    for networks that are no chains and for probes that cannot be measured.
    """
    probes, batch = Probes(), int(getattr(target, "batch", 1))
    peak = memory = cache = 0.0
    for one in measure(probes, target, list(probes.enumerate()), ["latency_ms"], store):
        if one.error is not None:
            raise UserError(f"{target.id} cannot run a single operator ({one.error}), so its roofs are not known.")
        macs, moved = probes.work(one.arch, batch)
        peak = max(peak, macs / one.value / 1e6)
        memory = moved / one.value / 1e6 or memory  # the last and largest one leaves every cache
        cache = max(cache, moved / one.value / 1e6)
    parts, chain = Parts(space, arch), space.parts(arch) or []
    layers: list[dict[str, Any]] = []
    for one in measure(parts, target, list(parts.enumerate()), ["latency_ms"], store):
        (part,) = parts.parts(one.arch)
        counts = count_part(part, batch)
        if one.error is None and counts["macs"]:
            layers.append(
                {
                    "name": part.key,
                    "times": sum(other.key == part.key for other in chain),
                    "macs": counts["macs"],
                    "bytes": counts["mem_access_bytes"],
                    "latency_ms": one.value,
                    "intensity": counts["macs"] / counts["mem_access_bytes"],
                    "rate": counts["macs"] / one.value / 1e6,
                }
            )
    return {"peak_gmacs_per_s": peak, "memory_gb_per_s": memory, "cache_gb_per_s": cache, "layers": layers}
