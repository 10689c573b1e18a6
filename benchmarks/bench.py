"""What benchmarks share that measure networks together and train them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

import sartor
from common import CACHE, Results, measured_on
from sartor import workflow
from sartor.core import Architecture, SearchSpace, Target
from sartor.runs import Run
from sartor.targets.store import Store
from sartor.training.recipe import Recipe

DATA = Path(os.environ.get("SARTOR_DATA", "../shared/data"))
TARGET = "onnxruntime:cpu?threads=1"


class Bench:
    """Data, a target, results, and files of its own; stages read the rows of those before them.

    setting: REDUCED or FULL of the benchmark; data: a reference, default that of the setting; more: further settings.
    """

    def __init__(
        self,
        setting: dict[str, Any],
        name: str,
        goal: str,
        seeds: Sequence[int],
        *,
        data: str | None = None,
        target: str = TARGET,
        **more: Any,
    ) -> None:
        torch.set_num_threads(1)
        self.setting, self.files = setting, CACHE / name
        self.files.mkdir(parents=True, exist_ok=True)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.task: Any = sartor.tasks.get((data or setting["data"]).format(data=DATA), device)
        self.target = sartor.targets.get(target)
        told = {"target": measured_on(name, self.target.id), "data_name": self.task.describe(), "seeds": seeds}
        self.results = Results(name, goal, {**setting, **told, **more})
        self.row = self.results.row

    @cached_property
    def store(self) -> Store:
        return Store(self.files / "measurements.db")

    def needed(self, **cell: Any) -> dict[str, Any]:
        """The row of a stage before."""
        row = self.results.get(cell)
        if row is None:
            raise SystemExit(f"{cell} is missing: run the stage before.")
        return row

    def times(
        self, members: Sequence[tuple[SearchSpace, Architecture]], sitting: str, target: Target | None = None
    ) -> list[float | None]:
        """Milliseconds of each, measured together; None for failures."""
        rows = workflow.compare(list(members), target or self.target, ["latency_ms"], self.store, sitting)
        return [row["latency_ms"] for row in rows]

    def train(self, space: SearchSpace, arch: Architecture, seed: int) -> dict[str, Any]:
        """What a training by the setting's recipe gives."""
        recipe = Recipe().override(self.setting["recipe"])
        with tempfile.TemporaryDirectory() as scratch, Run(Path(scratch) / "run", {"of": "bench"}, seed) as run:
            return workflow.train_network(space, arch, self.task, recipe, run)
