"""How long the command line takes to answer, and what importing sartor pulls in.

Must show 8: `sartor --help` within 0.3 s, `sartor search lightnas --help` within 0.6 s.

    python benchmarks/startup.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from common import Results

COMMANDS = {"sartor --help": ["--help"], "sartor search lightnas --help": ["search", "lightnas", "--help"]}
HEAVY = ["torch", "torchvision", "onnx", "onnxruntime", "matplotlib", "lightning", "ray", "pandas"]
RUNS = 15


def main() -> None:
    results = Results("startup", "--help within 0.3 s, search lightnas --help within 0.6 s", {"runs": RUNS})
    program = str(Path(sys.executable).parent / "sartor")

    def timed(arguments: list[str]) -> dict[str, float]:
        seconds = []
        for _ in range(RUNS + 1):
            began = time.perf_counter()
            subprocess.run([program, *arguments], check=True, capture_output=True)
            seconds.append(time.perf_counter() - began)
        return {"median_s": float(np.median(seconds[1:])), "max_s": max(seconds[1:])}  # the first fills the file cache

    rows = {name: results.row({"command": name}, lambda a=a: timed(a)) for name, a in COMMANDS.items()}
    code = f"import sys, json, sartor; print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    pulled = json.loads(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    results.summarise(
        **{name: {k: row[k] for k in ("median_s", "max_s")} for name, row in rows.items()},
        import_sartor_pulls_in=pulled or "none of " + ", ".join(HEAVY),
    )


if __name__ == "__main__":
    main()
