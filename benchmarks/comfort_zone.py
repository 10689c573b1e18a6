"""How far a network can be widened before a device notices: the Comfort Zone on this machine's targets.

Must show 6 of SurgeNAS. Expected: none on a CPU that computes all the time; an accelerator that a small network leaves
idle has one (published: about 3.0 on a GV100 and a Xavier, not reproduced).

    python benchmarks/comfort_zone.py [--full]       # full: the accelerator's targets, at 224 px
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import sartor
from common import CACHE, Results, parser
from sartor.targets.store import Store
from sartor.workflow.scaling import comfort_zone

SPACES = {"cifar": "mobilenet:cifar", "surgenas": "mobilenet:surgenas?resolution=128"}
TARGETS = ["onnxruntime:cpu?threads=1", "onnxruntime:cpu?threads=2", "torch:cpu?threads=1"]
FULL_SPACES, FULL_TARGETS = {"surgenas": "mobilenet:surgenas"}, ["torch:cuda", "torch:cuda?batch=8", "torch:cpu"]


def main() -> None:
    given = parser(__doc__).parse_args()
    spaces, targets = (FULL_SPACES, FULL_TARGETS) if given.full else (SPACES, TARGETS)
    results = Results(
        f"comfort_zone{'_full' if given.full else ''}",
        "the largest width factor at the same measured latency; expected none on a CPU",
        {"spaces": spaces, "targets": [sartor.targets.get(t).id for t in targets], "step": 0.1, "tolerance": 0.02},
    )
    torch.set_num_threads(1)
    with Store(CACHE / "comfort_zone.db") as store:
        for name, reference in spaces.items():
            space = sartor.spaces.get(reference)
            arch = space.sample(np.random.default_rng(0), 1)[0]
            for target in targets:
                cell = {"space": name, "target": target}
                results.row(cell, lambda s=space, a=arch, t=target: measured(s, a, t, store))
    results.summarise(
        rows=[
            {
                "network": f"random of {row['cell']['space']}",
                "target": row["cell"]["target"],
                "latency (ms)": row["steps"][0]["latency_ms"],
                "Comfort Zone up to": row["factor"],
                "latency at 1.1 x the width": row["steps"][1]["ratio"],
                "MACs there": row["steps"][1]["macs"] / row["steps"][0]["macs"],
                "counts as equal up to": row["steps"][0]["allowed"],
            }
            for row in results.data["rows"]
        ]
    )


def measured(space: Any, arch: tuple[int, ...], reference: str, store: Store) -> dict[str, Any]:
    zone = comfort_zone(space, arch, sartor.targets.get(reference), store, sitting=f"benchmark {reference}")
    return {"architecture": list(arch), **zone.describe()}


if __name__ == "__main__":
    main()
