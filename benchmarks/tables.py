"""How long reading a public table takes, and how much memory.

Must show: any table in under a second and under 200 MB. Each is read by a process of its own; figures include what
reading imports.

    SARTOR_DATA=FOLDER python benchmarks/tables.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from common import Results

TABLES = {
    "nas_bench_201.parquet": "nas-bench-201",
    "nas_bench_macro_cifar10.csv.gz": "nas-bench-macro",
    "fbnet_latency.parquet": "fbnet",
    "ofa_mobilenetv3_latency.parquet": "ofa-mobilenetv3",
    "ofa_mobilenetv3_imagenet_top1.csv": "ofa-mobilenetv3",
    "hat_transformer_latency.parquet": "hat",
}
CHILD = """
import json, resource, sys, time
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
import sartor, numpy
before, began, cpu = peak(), time.perf_counter(), time.process_time()
from sartor import tables
table = tables.load(*sys.argv[1:])
found = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu, "added_mb": peak() - before}
print(json.dumps({"rows": len(table.row), "columns": len(table.columns), **found}))
"""


def main() -> None:
    folder = Path(os.environ["SARTOR_DATA"])
    results = Results("tables", "any table in under a second, adding under 200 MB", {"files": list(TABLES)})

    def read(file: str) -> dict[str, float]:
        command = [sys.executable, "-c", CHILD, TABLES[file], str(folder / file)]
        found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        return found

    rows = [results.row({"space": space, "file": file}, lambda f=file: read(f)) for file, space in TABLES.items()]
    results.summarise(tables=[{**row["cell"], **{k: v for k, v in row.items() if k != "cell"}} for row in rows])


if __name__ == "__main__":
    main()
