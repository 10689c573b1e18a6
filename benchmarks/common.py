"""What every benchmark shares: where results go, what describes the machine, and rows that survive a kill."""

from __future__ import annotations

import argparse
import json
import math
import platform
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from sartor.runs import read_json, write_json

RESULTS = Path(__file__).parent / "results"
CACHE = Path(__file__).parent.parent / ".cache" / "benchmarks"
PACKAGES = ("sartor", "torch", "numpy", "scipy", "onnxruntime")


class Results:
    """One JSON file: settings once, finished cells as rows; the same command goes on where it stopped.

    name: file name without ending; settings: everything that must be equal for rows to belong together.
    """

    def __init__(self, name: str, goal: str, settings: dict[str, Any]) -> None:
        from sartor.targets.conditions import conditions, cpu_model

        self.file = RESULTS / f"{name}.json"
        head = {
            "benchmark": name,
            "goal": goal,
            "settings": settings,
            "versions": {p: version(p) for p in PACKAGES} | {"python": platform.python_version()},
            "machine": {"cpu": cpu_model(), **{k: v for k, v in conditions().items() if k != "hostname"}},
        }
        old = read_json(self.file) if self.file.exists() else None
        same = old is not None and old["settings"] == json.loads(json.dumps(settings))
        self.data: dict[str, Any] = old if same else {**head, "rows": [], "summary": {}}

    def row(self, cell: dict[str, Any], compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The row of a cell, computed once."""
        cell = json.loads(json.dumps(cell))
        for row in self.data["rows"]:
            if row["cell"] == cell:
                return dict(row)
        row = {"cell": cell, **compute()}
        self.data["rows"].append(row)
        write_json(self.file, self.data)
        print(json.dumps(row), flush=True)
        return row

    def summarise(self, **figures: Any) -> None:
        """Replace the summary that docs/results.md is made from."""
        self.data["summary"] = figures
        write_json(self.file, self.data)
        print(json.dumps(figures, indent=2), flush=True)


def interval(values: Sequence[float]) -> dict[str, float]:
    """Mean, standard deviation and the 95 % interval of the mean (Student's t)."""
    from scipy.stats import t

    x = np.asarray(values, float)
    spread = float(x.std(ddof=1)) if len(x) > 1 else math.nan
    half = float(t.ppf(0.975, len(x) - 1)) * spread / math.sqrt(len(x)) if len(x) > 1 else math.nan
    return {"mean": float(x.mean()), "std": spread, "low": float(x.mean()) - half, "high": float(x.mean()) + half}


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Options that all benchmarks have."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--full", action="store_true", help="the full setting; default: at most an hour on 2 cores")
    return made
