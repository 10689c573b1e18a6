"""How far two measuring passes over the same networks differ: by networks a chunk, and by how samples are condensed.

`targets/timing.py` has what follows from it. Passes with chunks of each size are made in turn, so that what neighbours
do hits all alike; nothing of one's own may run beside it, unless that is what is asked (`--busy`: so many processes
that multiply matrices). A pass is a sitting in a store, as any command makes it. Differences are of all pairs of passes
with the same chunks and all networks, in per cent; the share of the reference's samples within 10 % of its fastest says
how disturbed the passes were.

    python benchmarks/repeatability.py [--full] [--busy N]
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

import sartor
from common import CACHE, Results, parser
from sartor.core import Measurement
from sartor.targets.measure import measure
from sartor.targets.store import Store
from sartor.targets.timing import Rounds

CHUNKS = (24, 96)
REDUCED = {"space": "mobilenet:cifar?resolution=20", "networks": 96, "passes": 4}
FULL = {"space": "mobilenet:cifar", "networks": 96, "passes": 10}
WORK = "import numpy as np; a = np.ones((500, 500))\nwhile True: a @ a"


def third(samples: tuple[float, ...]) -> float:
    return float(np.mean(sorted(samples)[: max(1, round(len(samples) / 3))]))


CONDENSED: dict[str, Callable[[Measurement], float]] = {
    "minimum": lambda one: min(one.samples),
    "minimum / minimum of the reference": lambda one: min(one.samples) / min(one.reference),
    "mean of the lowest third": lambda one: third(one.samples),
    "the same / that of the reference": lambda one: third(one.samples) / third(one.reference),
    "median / median of the reference": lambda one: float(np.median(one.samples) / np.median(one.reference)),
}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--busy", type=int, default=0, help="processes beside it")
    given = options.parse_args()
    setting = FULL if given.full else REDUCED
    target, space = sartor.targets.get("onnxruntime:cpu?threads=1"), sartor.spaces.get(setting["space"])
    archs = space.sample(np.random.default_rng(0), setting["networks"])
    protocol = {name: getattr(Rounds(), name) for name in ("rounds", "longest", "visit_ms", "visit_runs")}
    results = Results(
        "repeatability" + ("_full" if given.full else ""),
        "Two passes over the same networks differ by little, also where neighbours disturb",
        {**setting, "target": target.id, "protocol": protocol, "chunks": CHUNKS},
    )
    others = [subprocess.Popen([sys.executable, "-c", WORK]) for _ in range(given.busy)]
    try:
        with Store(CACHE / f"{results.file.stem}.db") as store:

            def sit(chunk: int, number: int) -> dict[str, Any]:
                sitting = f"{given.busy} {chunk} {number}"
                began = time.perf_counter()
                own = replace(target, protocol=replace(target.protocol, chunk=chunk))
                found = measure(space, own, archs, ["latency_ms"], store, sitting)
                near = [np.mean(np.asarray(one.reference) <= 1.1 * min(one.reference)) for one in found]
                return {
                    "seconds": time.perf_counter() - began,
                    "rounds": float(np.mean([len(one.samples) for one in found])),
                    "undisturbed": float(np.mean(near)),
                    "ms": {name: [f(one) for one in found] for name, f in CONDENSED.items()},
                }

            for number in range(setting["passes"]):
                for chunk in CHUNKS:
                    results.row({"busy": given.busy, "chunk": chunk, "pass": number}, partial(sit, chunk, number))
    finally:
        for other in others:
            other.kill()
    results.summarise(rows=summary(results.data["rows"]))


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    out = []
    for busy, chunk in sorted({(row["cell"]["busy"], row["cell"]["chunk"]) for row in rows}):
        of = [row for row in rows if (row["cell"]["busy"], row["cell"]["chunk"]) == (busy, chunk)]
        apart = {}
        for name in CONDENSED:
            values = [np.array(row["ms"][name]) for row in of]
            pairs = [np.abs(a / b - 1) * 100 for a, b in combinations(values, 2)] or [np.array([np.nan])]
            apart[name] = float(np.percentile(np.concatenate(pairs), 90))
        out.append(
            {
                "busy processes": busy,
                "networks a chunk": chunk,
                "passes": len(of),
                "rounds": float(np.mean([row["rounds"] for row in of])),
                "a pass (s)": float(np.mean([row["seconds"] for row in of])),
                "reference undisturbed (share)": float(np.mean([row["undisturbed"] for row in of])),
                **{f"{name}, difference p90 (%)": value for name, value in apart.items()},
            }
        )
    return out


if __name__ == "__main__":
    main()
