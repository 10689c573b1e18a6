"""What every benchmark shares: where results go, what describes the machine, and rows that survive a kill."""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from sartor.runs import read_json, write_json

RESULTS = Path(__file__).parent / "results"
CACHE = Path(__file__).parent.parent / ".cache" / "benchmarks"
PACKAGES = ("sartor", "torch", "numpy", "scipy", "onnxruntime")


class Results:
    """One JSON file: settings once, finished cells as rows; the same command goes on where it stopped.

    Several processes may fill one file, each with cells of its own. Rows of other settings are never dropped: their
    file has to be moved away first. name: file name without ending; settings: everything that must be equal for rows
    to belong together.
    """

    def __init__(self, name: str, goal: str, settings: dict[str, Any]) -> None:
        from sartor.targets.conditions import conditions

        CACHE.mkdir(parents=True, exist_ok=True)
        self.processors = processors()
        self.file = RESULTS / f"{name}.json"
        head = {
            "benchmark": name,
            "goal": goal,
            "settings": settings,
            "versions": {p: version(p) for p in PACKAGES} | {"python": platform.python_version()},
            "machine": {**self.processors, **{k: v for k, v in conditions().items() if k != "hostname"}},
        }
        self.data: dict[str, Any] = {**json.loads(json.dumps(head)), "rows": [], "summary": {}}
        self._read()

    def get(self, cell: dict[str, Any]) -> dict[str, Any] | None:
        """The row of a cell that is finished; None for one that is not."""
        cell = json.loads(json.dumps(cell))
        return next((dict(row) for row in self.data["rows"] if row["cell"] == cell), None)

    def row(self, cell: dict[str, Any], compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The row of a cell, computed once."""
        cell = json.loads(json.dumps(cell))
        known = self.get(cell)
        if known is not None:
            return known
        row = {"cell": cell, **compute()}
        if any(self.data["machine"].get(name) != model for name, model in self.processors.items()):
            row["machine"] = self.processors  # another than that of the file
        with self._reading():
            self.data["rows"].append(row)
        print(json.dumps(row), flush=True)
        return row

    def summarise(self, **figures: Any) -> None:
        """Replace the summary that docs/results.md is made from."""
        with self._reading():
            self.data["summary"] = figures
        print(json.dumps(figures, indent=2), flush=True)

    def _read(self) -> None:
        old = read_json(self.file) if self.file.exists() else None
        if old is not None and old["settings"] != self.data["settings"]:
            sys.exit(f"{self.file} was measured with other settings: move it away to measure anew.")
        self.data = old or self.data

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """What other processes wrote is there, and what is changed here is written before they can."""
        with FileLock(CACHE / f"{self.file.name}.lock"):
            self._read()
            yield
            write_json(self.file, self.data)


def measured_on(name: str, target: str) -> str:
    """The target of a file that is there: what is trained on another machine belongs to what was measured.

    Rows say where they are from another machine than that of the file.
    """
    file = RESULTS / f"{name}.json"
    return str(read_json(file)["settings"]["target"]) if file.exists() else target


def processors() -> dict[str, str]:
    """Models of the CPU and, where there is one, of the GPU."""
    import torch

    from sartor.targets.conditions import cpu_model

    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return {"cpu": cpu_model(), **gpu}


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
