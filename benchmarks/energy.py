"""A search inside an energy budget: NAS-Bench-201 on the edge GPU of HW-NAS-Bench, in millijoules (Fig. 4.15).

Must show 1b. The energy column answers every cost question (cost known); the accuracy column only grades what was
found, beside random architectures that land on the same budget and beside the best network inside it.

Reduced: width 8, one cell per stage, CIFAR-10 (JPEG) at 16 px, 8,000 images. Full: width 16, five cells, all images.

`--identity 0` searches without the identity mapping, as the text does, on the same budgets and seeds.

    python benchmarks/energy.py [--full] [--only K] [--identity 0]       # 0 is the core budget
"""

from __future__ import annotations

import os
import tempfile
from typing import Any

import numpy as np
import torch

import sartor
from common import Results, interval, parser
from sartor import tables
from sartor.choose.solve import land, reachable
from sartor.core import Budget
from sartor.methods import SETTINGS
from sartor.runs import Run

ENERGY, TEST = "hwnb_edgegpu_energy_mj", "cifar10_test_acc_200ep"
SHARES, SEEDS, RANDOM = [0.4, 0.2, 0.6], [0, 1, 2], 200
REDUCED = {
    "space": "nas-bench-201?width=8&cells=1&resolution=16",
    "data": "parquet:{data}/cifar10?images=8000&resolution=16",
    "search": {"epochs": 30, "warmup_epochs": 8, "batch_size": 64, "lr": 0.05},
}
FULL = {
    "space": "nas-bench-201",
    "data": "parquet:{data}/cifar10",
    "search": {"epochs": 90, "warmup_epochs": 10, "batch_size": 128},
}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--only", type=int, choices=range(len(SHARES)), help="one budget")
    options.add_argument("--identity", type=float, help="weight of the identity mapping; default: the method's")
    given = options.parse_args()
    setting = FULL if given.full else REDUCED
    changed = {} if given.identity is None else {"identity": given.identity}
    engine = SETTINGS["lightnas"](**setting["search"], **changed)
    torch.set_num_threads(torch.get_num_threads() if given.full else 1)
    root = os.environ.get("SARTOR_DATA", "../shared/data")
    task = sartor.tasks.get(setting["data"].format(data=root), "cuda" if torch.cuda.is_available() else "cpu")
    table = tables.load(setting["space"], f"{root}/nas_bench_201.parquet")
    space, energy, test = table.space, table.score(ENERGY), table.score(TEST)
    low, high = reachable(space, energy)
    limits = [float(f"{low + share * (high - low):.3g}") for share in SHARES]
    results = Results(
        f"energy{'' if engine.identity else '_without_identity'}{'_full' if given.full else ''}",
        "one budget on a table's energy column: landed gap in [-0.5 %, 0], accuracy beside random and the best inside",
        {
            **setting,
            "search": engine.model_dump(),
            "data_name": task.describe(),
            "column": ENERGY,
            "grade": TEST,
            "limits": limits,
            "seeds": SEEDS,
        },
    )
    everyone = list(space.enumerate())
    costs, accuracies = energy(everyone), test(everyone)

    def search(budget: Budget, seed: int) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as scratch, Run(scratch, {"benchmark": "energy"}, seed) as run:
            found = sartor.search("lightnas", space, task, budget=budget, run=run, **engine.model_dump())
        return {
            "architecture": list(found.architecture),
            "landing": found.winner.status,
            "gap_percent": budget.gap_percent(found.winner.predicted["energy_mj"]),
            "argmax_gap_percent": budget.gap_percent(found.argmax.predicted["energy_mj"]),
            "accuracy": float(test([found.architecture])[0]),
        }

    def at_random(budget: Budget) -> dict[str, Any]:
        rng, values = np.random.default_rng(0), []
        for _ in range(RANDOM):
            noise = tuple(rng.normal(size=len(slot)) for slot in space.slots)
            values.append(land(space, noise, [budget], start=everyone[0], rng=rng).architecture)
        return {"accuracy": [float(v) for v in test(values)]}

    rows = []
    for limit in limits if given.only is None else [limits[given.only]]:
        budget = Budget(energy, limit)
        found = [results.row({"limit_mj": limit, "seed": s}, lambda b=budget, s=s: search(b, s)) for s in SEEDS]
        drawn = results.row({"limit_mj": limit, "what": "random"}, lambda b=budget: at_random(b))["accuracy"]
        inside = costs <= limit
        lands = inside & (costs >= budget.interval[0])
        rows.append(
            {
                "budget (mJ)": limit,
                "gap (%)": [min(r["gap_percent"] for r in found), max(r["gap_percent"] for r in found)],
                "argmax gap, worst (%)": max((r["argmax_gap_percent"] for r in found), key=abs),
                "test accuracy (%)": interval([r["accuracy"] for r in found]),
                "random that lands (%)": interval(drawn),
                "networks that land": int(lands.sum()),
                "best that lands (%)": float(np.nanmax(accuracies[lands])),
                "best within the budget (%)": float(np.nanmax(accuracies[inside])),
            }
        )
    if given.only is None:
        results.summarise(rows=rows, missing=int(np.isnan(costs).sum()), range_mj=[low, high])


if __name__ == "__main__":
    main()
