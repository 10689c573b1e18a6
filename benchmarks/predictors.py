"""Every predictor beside additive ridge on devices that others measured; all rows not trained on are held out.

Must show: NAS-Bench-201, Spearman with 900 samples: raspi4 >= .97 (additive ridge .941), gold_6226 never more than .002
below additive ridge (.989). `auto` is what `sartor fit` would take, chosen on the training rows alone; nothing is tuned
on held-out rows.

The first table is our own: 2,000 networks of the LightNAS layout measured on a CPU (latency_table.py). Sums of block
costs are left out: any additive predictor looks perfect there.

Reduced: 3 seeds, 100 and 900 samples (1,600 too of our own table). Full: 10 seeds, 10 and 50 samples as well, and
simulated devices. `--only` computes some of the predictors; rows that are there stay.

    SARTOR_DATA=../shared/data python benchmarks/predictors.py [--only ridge,pairs] [--full]
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import sartor
from common import RESULTS, Results, interval, parser
from sartor import tables
from sartor.core import METRICS
from sartor.predictors import PREDICTORS
from sartor.predictors.evaluate import evaluate, quality
from sartor.tables import Table

AUTO = ("pairs", "mlp")
NAMES = ("ridge", "auto", "pairs", "mlp", "svm", "gcn", "gnn-plain", "gnn")
OWN = "mobilenet:lightnas"
FILES = {
    "nas-bench-201": "nas_bench_201.parquet",
    "fbnet": "fbnet_latency.parquet",
    "ofa-mobilenetv3": "ofa_mobilenetv3_latency.parquet",
}
MEASURED = {
    OWN: ["latency_ms"],
    "nas-bench-201": [
        "hwnb_raspi4_latency_ms",
        "help_gold_6226_latency_ms",
        "hwnb_edgegpu_latency_ms",
        "hwnb_edgegpu_energy_mj",
        "help_titan_rtx_1_latency_ms",
        "help_titan_rtx_256_latency_ms",
    ],
    "fbnet": ["gold_6226_ms", "titan_rtx_1_ms", "titan_rtx_32_ms"],
    "ofa-mobilenetv3": ["titan_rtx_1_ms", "titan_rtx_64_ms"],
}
REDUCED = {"columns": MEASURED, "train": [100, 900, 1600], "seeds": 3}
FULL = {
    "columns": {
        **MEASURED,
        "nas-bench-201": [*MEASURED["nas-bench-201"], "hwnb_eyeriss_latency_ms", "hwnb_eyeriss_energy_mj"],
    },
    "train": [10, 50, 100, 900, 1600],
    "seeds": 10,
}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--only", default=",".join(NAMES))
    options.add_argument("--table", choices=MEASURED, help="one table; processes may take one each")
    given = options.parse_args()
    torch.set_num_threads(1)
    setting: dict[str, Any] = FULL if given.full else REDUCED
    results = Results(
        f"predictors{'_full' if given.full else ''}",
        "NAS-Bench-201, 900 samples, Spearman: raspi4 >= .97, gold_6226 at most .002 below additive ridge",
        setting,
    )
    data = Path(os.environ.get("SARTOR_DATA", "../shared/data"))
    for name, columns in setting["columns"].items():
        if given.table not in (None, name):
            continue
        table = own_table() if name == OWN else tables.load(name, data / FILES[name])
        sizes = [train for train in setting["train"] if name == OWN or train <= 900]
        for column, train, seed, predictor in product(columns, sizes, range(setting["seeds"]), given.only.split(",")):
            results.row(
                {"table": name, "column": column, "train": train, "predictor": predictor, "seed": seed},
                partial(held_out, table, column, train, seed, predictor),
            )
    results.summarise(rows=summary(results.data["rows"]))


def own_table() -> Table:
    """The networks that latency_table.py measured."""
    frame = pd.read_csv(RESULTS / "lightnas_cpu_latency.csv.gz", dtype={"architecture": str})
    archs = [tuple(map(int, text)) for text in frame["architecture"]]
    return Table(sartor.spaces.get(OWN), archs, {"latency_ms": frame["latency_ms"].to_numpy(np.float64)})


def held_out(table: Table, column: str, train: int, seed: int, name: str) -> dict[str, Any]:
    """Quality on all but `train` random architectures, and CPU seconds of choosing and fitting."""
    unit, space = METRICS["energy_mj" if column.endswith("_mj") else "latency_ms"], table.space
    whole, every = np.flatnonzero(np.isfinite(table.columns[column])), list(table.row)
    order = np.random.default_rng([seed, train]).permutation(whole)
    archs, values = [every[i] for i in order], table.columns[column][order]
    began = time.process_time()
    known, numbers = archs[:train], values[:train]
    chosen = name
    if name == "auto":
        makers = {n: lambda n=n: PREDICTORS.make(n) for n in AUTO}
        found = evaluate(makers, space, known, numbers, metric=unit, seed=seed)
        chosen = next(row["predictor"] for row in found if row["default"])
    fitted = PREDICTORS.make(chosen).fit(space, known, numbers, metric=unit)
    seconds = time.process_time() - began
    return {"chosen": chosen, "seconds": seconds, **quality(fitted(archs[train:]), values[train:])}


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry per table, column, training size and predictor, over seeds."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    keys = ("table", "column", "train", "predictor")
    for row in rows:
        groups.setdefault(tuple(row["cell"][key] for key in keys), []).append(row)
    return [
        dict(zip(keys, group))
        | {key: interval([row[key] for row in found]) for key in ("spearman", "kendall", "rmse")}
        | {"seconds": float(np.mean([row["seconds"] for row in found])), "chosen": [row["chosen"] for row in found]}
        for group, found in sorted(groups.items())
    ]


if __name__ == "__main__":
    main()
