"""MathNAS on NAS-Bench-201: what few answers tell of all networks, and budgets that hold in the table.

ranking (issue MathNAS, must show 3): 10 seeds, 781 queries of the accuracy column. Spearman with the test column over
the networks that were not asked about and over all, and the test accuracy of the network found: the estimate, the block
tables as published (26 answers) and from 31 random contexts, LANA-style, BRP-NAS-style, regularised evolution, random
search.
Published, not reproduced: test 93.31, Spearman .9187 on ImageNet16-120.

budgets (must show 4): 100 random pairs of limits that some network keeps, on two cost columns at once, known and
predicted from 900 rows (five draws of these, each for twenty budgets), 200 queries each: how often the table agrees
that both are met, and how far the network found is below the best one within them. Fewer queries, because each budget
is a search.

Both are full settings: a table needs no accelerator.

    python benchmarks/mathnas.py ranking|budgets [--only METHOD|PAIR] [--part K --of N]    # several fill one file
"""

from __future__ import annotations

import os
import tempfile
import time
from functools import cache
from typing import Any

import numpy as np
import torch

from common import Results, interval, parser
from sartor import tables
from sartor.bench import Cautious, Job, compare_methods
from sartor.runs import Run

VALID, TEST = "cifar10_valid_acc_200ep", "cifar10_test_acc_200ep"
METHODS = ("mathnas", "mathnas-paper", "mathnas-blocks", "lana", "brp-nas", "evolution", "random")
SEEDS, QUERIES, BUDGETS, FEW, ROWS, DRAWS = 10, 781, 100, 200, 900, 5
PAIRS = {
    "pi4 and eyeriss": ("hwnb_raspi4_latency_ms", "hwnb_eyeriss_latency_ms"),
    "edge gpu": ("hwnb_edgegpu_latency_ms", "hwnb_edgegpu_energy_mj"),
}
UNITS = {"ms": "ms", "mj": "mJ"}
GOALS = {
    "ranking": "Spearman >= .94 and test accuracy >= 94.2 %, 10 seeds, 781 queries",
    "budgets": "both budgets met in the table in >= 95 % of 100 random feasible pairs; regret",
}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("experiment", choices=GOALS)
    options.add_argument("--only", help="one method, or one pair of columns")
    options.add_argument("--part", type=int, default=0, help="which part of the seeds or budgets, from 0")
    options.add_argument("--of", type=int, default=1, help="how many parts there are")
    given = options.parse_args()
    torch.set_num_threads(1)
    table = tables.load("nas-bench-201", f"{os.environ.get('SARTOR_DATA', '../shared/data')}/nas_bench_201.parquet")
    work = ranking if given.experiment == "ranking" else budgets
    setting = {"asked": VALID, "graded": TEST, "seeds": SEEDS, "queries": QUERIES if work is ranking else FEW}
    results = Results(
        f"mathnas_{given.experiment}",
        GOALS[given.experiment],
        setting
        if work is ranking
        else {**setting, "budgets": BUDGETS, "cost rows": ROWS, "draws": DRAWS, "columns": PAIRS},
    )
    results.summarise(**work(results, table, given.only, given.part, given.of))


def search(table: Any, method: str, seed: int, predicted: Any = None, **job: Any) -> dict[str, Any]:
    """One search beside none of the baselines; predicted: of a cost, by column and seed."""
    began = time.process_time()
    with tempfile.TemporaryDirectory() as scratch, Run(scratch, {"benchmark": "mathnas"}, seed) as run:
        found = compare_methods(table, Job(method, VALID, TEST, seeds=1, **job), run, (), predicted)
    (point,) = found["points"]
    return {**point, "optimum": found["optimum_test"], "cpu_seconds": time.process_time() - began}


def share(count: int, part: int, of: int) -> range:
    """Neighbours, because they share what is fitted."""
    return range(count * part // of, count * (part + 1) // of)


def ranking(results: Results, table: Any, only: str | None, part: int, of: int) -> dict[str, Any]:
    for seed in share(SEEDS, part, of):
        for method in METHODS if only is None else [only]:
            cell = {"method": method, "seed": seed}
            results.row(cell, lambda m=method, s=seed: search(table, m, s, queries=QUERIES))
    rows = []
    for method in METHODS:
        mine = [row for row in results.data["rows"] if row["cell"]["method"] == method]
        ordered, every = (
            [row[key] for row in mine if row.get(key) is not None] for key in ("spearman", "spearman_all")
        )
        rows.append(
            {
                "method": method,
                "seeds": len(mine),
                "answers": float(np.mean([row["accuracy_rows"] for row in mine])),
                "Spearman of the rest": interval(ordered) if ordered else None,
                "Spearman of all": interval(every) if every else None,
                "test accuracy (%)": interval([row["test"] for row in mine]),
                "cpu seconds": float(np.mean([row["cpu_seconds"] for row in mine])),
            }
            if mine
            else {"method": method, "seeds": 0}
        )
    return {"rows": rows, "optimum_percent": float(np.nanmax(table.columns[TEST]))}


def limits(table: Any, costs: tuple[str, ...], seed: int) -> list[str]:
    """Limits that a random network keeps, each up to 20 % above what it costs."""
    rng = np.random.default_rng([7, seed])
    whole = np.flatnonzero(np.all([np.isfinite(table.columns[c]) for c in costs], axis=0))
    row = int(rng.choice(whole))
    return [
        f"{table.columns[cost][row] * (1 + 0.2 * rng.random()):.6g}{UNITS[cost.rpartition('_')[2]]}" for cost in costs
    ]


def asking_all(table: Any, row: dict[str, Any]) -> float:
    """How far the network of best validation accuracy within the limits is below the optimum by test accuracy."""
    costs = PAIRS[row["cell"]["columns"]]
    keeps = [table.columns[cost] <= float(limit.rstrip("mJs")) for cost, limit in zip(costs, row["limits"])]
    best = int(np.argmax(np.where(np.all(keeps, axis=0), table.columns[VALID], -np.inf)))
    return float(row["optimum"] - table.columns[TEST][best])


def budgets(results: Results, table: Any, only: str | None, part: int, of: int) -> dict[str, Any]:
    @cache
    def fitted(cost: str, draw: int) -> Cautious:
        score, archs = table.score(cost), list(table.row)
        whole = np.flatnonzero(np.isfinite(score.values))
        pick = np.random.default_rng([draw, 1]).permutation(whole)[:ROWS]
        return Cautious(table.space, [archs[i] for i in pick], score.values[pick], score.metric)

    def believed(cost: str, seed: int) -> Cautious:
        return fitted(cost, seed * DRAWS // BUDGETS)

    def found(job: dict[str, Any], seed: int) -> dict[str, Any]:
        return {"limits": job["limits"], **search(table, "mathnas-answer", seed, believed, **job)}

    for seed in share(BUDGETS, part, of):
        for name, costs in PAIRS.items():
            for rows in (None, ROWS):
                if only in (None, name):
                    cell = {"columns": name, "cost": "known" if rows is None else "predicted", "budget": seed}
                    given = tuple(limits(table, costs, seed))
                    job = {"costs": costs, "limits": given, "queries": FEW, "cost_rows": rows}
                    results.row(cell, lambda j=job, s=seed: found(j, s))
    rows = []
    for name in PAIRS:
        for kind in ("known", "predicted"):
            mine = [r for r in results.data["rows"] if (r["cell"]["columns"], r["cell"]["cost"]) == (name, kind)]
            if mine:
                regret = [row["optimum"] - row["test"] for row in mine if row["met"]]
                rows.append(
                    {
                        "pair": name,
                        "cost": kind,
                        "budgets": len(mine),
                        "both met (%)": 100 * float(np.mean([row["met"] for row in mine])),
                        "found nothing": sum(row["architecture"] is None for row in mine),
                        "regret where met (points)": interval(regret),
                        "regret, median": float(np.median(regret)),
                        "regret of asking about all": float(np.mean([asking_all(table, row) for row in mine])),
                    }
                )
    return {"rows": rows}


if __name__ == "__main__":
    main()
