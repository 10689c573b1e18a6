"""2,000 LightNAS networks measured on this CPU, repeatability of two passes, and predictors fitted on them.

Must show 2 (two passes over 30 networks differ by <= 5 % at the 90th percentile) and 3 (ridge, lookup, MLP on >= 2,000
measured architectures, beside the noise floor). The table is written to results/lightnas_cpu_latency.csv.gz.

    python benchmarks/latency_table.py [--samples 2000]
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

import sartor
from common import CACHE, RESULTS, Results, parser
from sartor import workflow
from sartor.core import metric
from sartor.predictors import PREDICTORS
from sartor.predictors.evaluate import evaluate, noise_floor
from sartor.predictors.mlp import MLP
from sartor.targets.measure import measure
from sartor.targets.store import Store

SPACE = "mobilenet:lightnas"
TARGET = "onnxruntime:cpu?threads=1&batch=1"
REPEATED = 30


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--samples", type=int, default=2000)
    samples = options.parse_args().samples
    space, target = sartor.spaces.get(SPACE), sartor.targets.get(TARGET)
    results = Results(
        "latency_table",
        "two passes over 30 networks within 5 % at p90; ridge, lookup and MLP beside the noise floor",
        {"space": space.spec(), "target": target.id, "samples": samples, "repeated": REPEATED},
    )
    archs = workflow.design(space, samples)
    with Store(CACHE / "latency_table.db") as store:
        found = measure(space, target, archs, ["latency_ms"], store)
        passes = [
            [one.value for one in measure(space, target, archs[:REPEATED], ["latency_ms"], store, sitting=name)]
            for name in ("pass 1", "pass 2")
        ]
        parts = workflow.measure_parts(space, target, "latency_ms", store)
    values = np.asarray([one.value for one in found])
    table = pd.DataFrame(
        {
            "architecture": ["".join(map(str, a)) for a in archs],
            "latency_ms": np.round(values, 5),
            "median_ms": np.round([one.median for one in found], 5),
            "p90_ms": np.round([one.p90 for one in found], 5),
            "reference_ms": np.round([min(one.reference) if one.reference else np.nan for one in found], 5),
        }
    )
    table.to_csv(RESULTS / "lightnas_cpu_latency.csv.gz", index=False)

    first, second = map(np.asarray, passes)
    apart = np.abs(second / first - 1) * 100
    floor = noise_floor(first, second)
    repeatability = results.row(
        {"what": "repeatability"},
        lambda: {
            "networks": REPEATED,
            "p50_percent": float(np.percentile(apart, 50)),
            "p90_percent": float(np.percentile(apart, 90)),
            "max_percent": float(apart.max()),
            "noise_floor_ms": floor,
            "against_table_p90_percent": float(np.percentile(np.abs(values[:REPEATED] / first - 1) * 100, 90)),
        },
    )
    makers = {
        "lookup": lambda: PREDICTORS.make("lookup", parts=parts),
        "lookup without intercept": lambda: PREDICTORS.make("lookup", parts=parts, intercept=False),
        "mlp": lambda: PREDICTORS.make("mlp"),
        "mlp as published": MLP.paper,
    }
    rows = results.row(
        {"what": "predictors"},
        lambda: {
            "rows": json.loads(
                json.dumps(evaluate(makers, space, archs, values, metric=metric("latency_ms"), floor=floor))
            ),
            "range_ms": [float(np.nanmin(values)), float(np.nanmax(values))],
            "failed": int(np.isnan(values).sum()),
        },
    )
    results.summarise(
        repeatability_p90_percent=repeatability["p90_percent"],
        noise_floor_ms=floor,
        range_ms=rows["range_ms"],
        predictors=[
            {
                k: row[k]
                for k in ("predictor", "rmse", "rmse_std", "mae", "kendall", "spearman", "within_5", "within_10")
            }
            for row in rows["rows"]
        ],
        default=next(row["predictor"] for row in rows["rows"] if row["default"]),
    )


if __name__ == "__main__":
    main()
