"""One search against a sweep of fixed multipliers, and a search without the accuracy term.

Must show 1b. A fixed multiplier is tuned as an engineer would: start at 1, double or halve until the limit is
bracketed, then bisect on a logarithmic scale, at most 10 trials (Fig. 4.3); counted are runs and CPU seconds until
the argmax costs within 1 % of the limit. Beside it one search with the learned multiplier. Without the accuracy term
(Figs. 4.13, 4.14) the same budgets are searched and the networks trained alike.

    python benchmarks/sweep.py
"""

from __future__ import annotations

import math
import tempfile
import time
from typing import Any

import torch

import sartor
from common import CACHE, Results, interval, parser
from landing import REDUCED, SEEDS, SHARES, TRAINED, train
from sartor.choose.solve import reachable
from sartor.core import Budget
from sartor.methods import SETTINGS
from sartor.predictors import load
from sartor.runs import Run
from sartor.training.recipe import Recipe

TRIALS = 10
SWEPT = [3, 1, 5]  # budgets, in order of worth


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--core", action="store_true", help="one budget")
    given = options.parse_args()
    torch.set_num_threads(1)
    space, task = sartor.spaces.get(REDUCED["space"]), sartor.tasks.get(REDUCED["data"])
    score = load(CACHE / "landing.safetensors", space=space)  # benchmarks/landing.py measures and fits it
    low, high = reachable(space, score)
    limits = [float(f"{low + share * (high - low):.3g}") for share in SHARES]
    results = Results(
        "sweep",
        "runs and CPU seconds until within 1 %: one search, or up to 10 fixed multipliers; accuracy without its term",
        {
            **REDUCED,
            "search": SETTINGS["lightnas"](**REDUCED["search"]).model_dump(),
            "trials": TRIALS,
            "limits": limits,
            "seeds": SEEDS,
        },
    )

    def search(limit: float, seed: int, **settings: Any) -> dict[str, Any]:
        began, budget = time.process_time(), Budget(score, limit)
        with tempfile.TemporaryDirectory() as scratch, Run(scratch, {"benchmark": "sweep"}, seed) as run:
            found = sartor.search("lightnas", space, task, budget=budget, run=run, **{**REDUCED["search"], **settings})
        return {
            "argmax_gap_percent": budget.gap_percent(found.argmax.predicted["latency_ms"]),
            "architecture": list(found.architecture),
            "cpu_seconds": time.process_time() - began,
        }

    for k in SWEPT[:1] if given.core else SWEPT:
        limit = limits[k]
        results.row({"limit_ms": limit, "how": "learned"}, lambda at=limit: search(at, 0))
        below: float | None = None  # largest multiplier that is too slow, smallest that is too fast
        above: float | None = None
        multiplier = 1.0
        for trial in range(TRIALS):
            cell = {"limit_ms": limit, "how": "fixed", "trial": trial}
            row = results.row(
                cell,
                lambda at=limit, m=multiplier: {"multiplier": m, **search(at, 0, multiplier=m, land=False)},
            )
            gap = row["argmax_gap_percent"]
            if abs(gap) <= 1:
                break
            below, above = (row["multiplier"], above) if gap > 0 else (below, row["multiplier"])
            if below is None or above is None:
                multiplier = row["multiplier"] * (2.0 if gap > 0 else 0.5)
            else:
                multiplier = math.sqrt(below * above)

    recipe = Recipe().override(REDUCED["recipe"])
    for k in TRAINED[:1] if given.core else TRAINED:
        for seed in SEEDS:
            for term in (True, False):
                cell = {"limit_ms": limits[k], "seed": seed, "accuracy_term": term}
                row = results.row(cell, lambda at=limits[k], s=seed, t=term: search(at, s, accuracy_term=t))
                arch = tuple(row["architecture"])
                results.row({**cell, "what": "train"}, lambda a=arch, s=seed: train(space, a, task, recipe, s))
    results.summarise(rows=_sweep(results.data["rows"]), accuracy=_terms(results.data["rows"]))


def _sweep(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    out = []
    for limit in dict.fromkeys(r["cell"]["limit_ms"] for r in rows if "how" in r["cell"]):
        here = [r for r in rows if r["cell"]["limit_ms"] == limit and "how" in r["cell"]]
        for how in ("learned", "fixed"):
            own = [r for r in here if r["cell"]["how"] == how]
            out.append(
                {
                    "budget (ms)": limit,
                    "multiplier": how,
                    "runs": len(own),
                    "CPU seconds": sum(r["cpu_seconds"] for r in own),
                    "best argmax gap (%)": min((r["argmax_gap_percent"] for r in own), key=abs),
                    "within 1 %": any(abs(r["argmax_gap_percent"]) <= 1 for r in own),
                }
            )
    return out


def _terms(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    trained = [r for r in rows if r["cell"].get("what") == "train"]
    out = []
    for limit in dict.fromkeys(r["cell"]["limit_ms"] for r in trained):
        for term in (True, False):
            cells = [r for r in trained if r["cell"]["limit_ms"] == limit and r["cell"]["accuracy_term"] == term]
            if cells:
                found = interval([r["value"] for r in cells])
                row = {"budget (ms)": limit, "accuracy term": term, "accuracy (%)": found["mean"]}
                out.append(row | {"low": found["low"], "high": found["high"], "seeds": len(cells)})
    return out


if __name__ == "__main__":
    main()
