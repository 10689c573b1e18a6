"""Networks graded by training each of them."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sartor.core import Architecture, F, Score, SearchSpace, Task
from sartor.runs import Run
from sartor.training.loop import Diverged, train
from sartor.training.recipe import Recipe

logger = logging.getLogger("sartor")


class TrainedScore(Score):
    """The task's metric on `valid` of networks that are trained on `train`, each by itself, from the same seed.

    recipe: of the trainings; start: makes the network that is trained, default `space.network`, fresh. NaN where a loss
    does not stay finite.
    """

    def __init__(
        self,
        space: SearchSpace,
        task: Task,
        recipe: Recipe,
        *,
        start: Callable[[Architecture], nn.Module] | None = None,
        seed: int = 0,
    ) -> None:
        self.space, self.task, self.metric = space, task, task.metric
        self.recipe = recipe.model_copy(update={"evaluate_every": 0})
        self.start, self.seed = start or space.network, seed

    def __call__(self, archs: Sequence[Sequence[int]]) -> F:
        return np.array([self._one(self.space.canonical(arch)) for arch in archs], dtype=np.float64)

    def _one(self, arch: Architecture) -> float:
        with tempfile.TemporaryDirectory() as scratch, Run(Path(scratch) / "run", {"trained": True}, self.seed) as run:
            torch.manual_seed(run.torch_seed("weights"))
            network = self.start(arch)
            try:
                return float(train(network, self.task, self.recipe, run, split="train", evaluate="valid")["value"])
            except Diverged as error:
                logger.warning("%s has no grade: %s", self.space.key(arch), error)
                return float("nan")
