"""When the layers of a LightNAS search decide, by how far its logits can travel.

A layer that decides before the supernet has learnt anything decides by chance. `reach` is how far a logit can travel:
arch_lr = reach / updates. A row says after which share of the search half of the layers had a candidate with P > 0.9,
how far the argmax was from its budget, and how many slots landing changed. The default of the method was chosen here:
the reach with which half of the layers decide in the second half of a search whose budget leaves a choice (the tight
budget decides most layers by itself), and which still lands.

Setting, data and predictor are those of landing.py, reduced.

    python benchmarks/decisions.py [--seed S]     # several processes may take parts
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sartor
from common import CACHE, Results, parser
from landing import REDUCED
from sartor.choose.solve import reachable
from sartor.core import Budget
from sartor.methods import SETTINGS
from sartor.predictors import load
from sartor.runs import Run, read_lines
from sartor.training.optimise import steps_per_epoch

REACHES, SHARES, SEEDS = [10.0, 3.0, 1.0], [0.5, 0.18], [0, 1]
DECIDED = 900  # per mille


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--seed", type=int, choices=SEEDS, help="one seed")
    given = options.parse_args()
    torch.set_num_threads(1)
    space, task = sartor.spaces.get(REDUCED["space"]), sartor.tasks.get(REDUCED["data"])
    score = load(CACHE / "landing.safetensors", space=space)  # benchmarks/landing.py measures and fits it
    low, high = reachable(space, score)
    engine = SETTINGS["lightnas"](**REDUCED["search"])
    updates = (engine.epochs - engine.warmup_epochs) * steps_per_epoch(task, "valid", engine.batch_size)
    results = Results(
        "decisions",
        "half of the layers decide in the second half of the search, argmax and landing unharmed",
        {**REDUCED, "search": engine.model_dump(exclude={"arch_lr"}), "updates": updates},
    )

    def one(reach: float, share: float, seed: int) -> dict[str, Any]:
        began, budget = time.process_time(), Budget(score, float(f"{low + share * (high - low):.3g}"))
        with tempfile.TemporaryDirectory() as scratch, Run(scratch, {"benchmark": "decisions"}, seed) as run:
            settings = {**REDUCED["search"], "arch_lr": reach / updates}
            found = sartor.search("lightnas", space, task, budget=budget, run=run, **settings)
            lines = read_lines(Path(scratch) / "search" / "journal.jsonl")
        epochs = [line for line in lines if line["event"] == "epoch"]
        middle = [float(np.median([max(row) for row in e["permille"]])) for e in epochs if e["of"] == "search"]
        return {
            "argmax_gap": budget.gap_percent(found.argmax.predicted["latency_ms"]),
            "changed": sum(a != b for a, b in zip(found.architecture, found.argmax.architecture)),
            "half": next((i / len(middle) for i, p in enumerate(middle) if p > DECIDED), 1.0),
            "median_p": [round(p) for p in middle[::4]],
            "cpu": time.process_time() - began,
        }

    for reach in REACHES:
        for share in SHARES:
            for seed in SEEDS if given.seed is None else [given.seed]:
                cell = {"reach": reach, "share": share, "seed": seed}
                results.row(cell, lambda r=reach, a=share, s=seed: one(r, a, s))
    summary = []
    for reach in REACHES:
        for share in SHARES:
            rows = [r for r in results.data["rows"] if (r["cell"]["reach"], r["cell"]["share"]) == (reach, share)]
            if rows:
                row: dict[str, Any] = {"reach": reach, "budget, share of the range": share, "seeds": len(rows)}
                row["half of the layers decided after (share of the search)"] = float(
                    np.mean([r["half"] for r in rows])
                )
                row["argmax gap, worst (%)"] = max((r["argmax_gap"] for r in rows), key=abs)
                summary.append({**row, "slots changed by landing": [r["changed"] for r in rows]})
    results.summarise(rows=summary)


if __name__ == "__main__":
    main()
