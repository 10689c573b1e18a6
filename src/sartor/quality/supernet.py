"""Sub-networks graded by the weights that they share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from sartor.core import Architecture, F, Optimiser, Path, Score, SearchSpace, Task, UserError
from sartor.core.memory import image_layout
from sartor.core.progress import progress
from sartor.quality.blocks import additive_macs, base_network
from sartor.runs import Run
from sartor.supernet import recalibrated
from sartor.training.optimise import SCHEDULES, Schedule, make_optimiser, set_lr, steps_per_epoch
from sartor.training.recipe import usual_warmup

Draw: TypeAlias = Callable[[np.random.Generator, int], list[Architecture]]
"""So many architectures, from a stream."""
_DRAWN = 2  # paths of a step besides the two ends
_RATES: dict[Optimiser, tuple[float, float]] = {"sgd": (0.05, 4e-5), "adamw": (1e-3, 0.01)}  # lr, weight decay


def train_supernet(
    space: SearchSpace,
    task: Task,
    run: Run,
    *,
    epochs: int,
    batch_size: int,
    optimiser: Optimiser | None = None,
    lr: float | None = None,
    schedule: Schedule = "cosine",
    clip_norm: float | None = 5.0,
    draw: Draw | None = None,
    supernet: Any = None,
) -> Any:
    """A supernet of the space, trained on `train`.

    supernet: one to be trained further, default a fresh one; optimiser: default as the space wants, AdamW with a
    warm-up of an epoch (at most a tenth of all); lr: at first, default 0.05, AdamW 1e-3; schedule: of lr, to 0;
    draw: of paths, default uniformly.

    One path a step, every candidate of a slot as likely as any other: Z. Guo et al., "Single Path One-Shot Neural
    Architecture Search with Uniform Sampling", ECCV 2020. With every network as likely as any other, shallow ones would
    hardly be trained where slots are conditional: nearly all networks are deep. Where candidates share weights
    (`nested`), the largest network, the smallest and two others a step, gradients added up: the sandwich rule of J. Yu,
    T. Huang, "Universally Slimmable Networks and Improved Training Techniques", ICCV 2019.

    The run gets a line an epoch with the loss of the drawn paths, and a killed one goes on. Raises UserError when the
    loss is no longer finite.
    """
    torch.manual_seed(run.torch_seed("weights"))
    supernet = space.supernet() if supernet is None else supernet
    supernet.to(task.device, memory_format=image_layout(task.device))
    kind = optimiser or space.optimiser
    usual, decay = _RATES[kind]
    peak = usual if lr is None else lr
    w = make_optimiser(supernet, kind, lr=peak, weight_decay=decay)
    steps = steps_per_epoch(task, "train", batch_size)
    warmup = round(usual_warmup(epochs) * steps) if kind == "adamw" else 0
    curve = SCHEDULES[schedule]
    draw = draw or uniform(space)
    ends, drawn = [], 1
    if getattr(supernet, "nested", False):
        ends, drawn = _ends(space), _DRAWN
    for epoch in run.steps(epochs, supernet=supernet, w=w):
        torch.manual_seed(run.torch_seed("dropout", epoch))
        rng, total = run.rng("paths", epoch), torch.zeros((), device=task.device)
        supernet.train()
        for i, batch in enumerate(task.batches("train", size=batch_size, seed=run.seed, epoch=epoch)):
            set_lr(w, curve(epoch * steps + i, epochs * steps, peak=peak, warmup=warmup))
            w.zero_grad(set_to_none=True)
            for k, arch in enumerate([*ends, *draw(rng, drawn)]):
                loss = task.loss(partial(supernet, path=Path(arch)), batch)
                loss.backward()
                if k >= len(ends):
                    total += loss.detach() / drawn
            if clip_norm is not None:
                nn.utils.clip_grad_norm_([p for p in supernet.parameters() if p.grad is not None], clip_norm)
            w.step()
        mean = float(total) / steps  # the only wait for the device in an epoch
        if not math.isfinite(mean):
            raise UserError(f"the loss is {mean} in epoch {epoch + 1} of the supernet; lower lr={peak:g}.")
        run.log("epoch", epoch=epoch, of="supernet", loss=mean)
    supernet.zero_grad(set_to_none=True)
    return supernet.eval()


def uniform(space: SearchSpace) -> Draw:
    """Every candidate of a slot as likely as any other."""
    return lambda rng, n: space.sample(rng, n, uniform_over="choices")


def stratified(space: SearchSpace, cost: Score) -> Draw:
    """Draws that spread a cost evenly: of seven ranges within three deviations of the mean, each as often.

    SPOS' code does so with multiply-accumulates, of which its ranges are 290 to 360 million (mean 327, deviation 12).
    Where five hundred networks are not in the range whose turn it is, one of them is taken.
    """
    costs = cost(space.sample(np.random.default_rng(0), 2000, uniform_over="choices"))
    edges = float(costs.mean()) + float(costs.std()) * np.linspace(-3.0, 3.0, 8)

    def one(rng: np.random.Generator) -> Architecture:
        low, high = edges[(turn := int(rng.integers(7))) : turn + 2]
        for _ in range(10):
            archs = space.sample(rng, 50, uniform_over="choices")
            inside = np.flatnonzero((low <= (costs := cost(archs))) & (costs < high))
            if len(inside):
                return archs[int(inside[0])]
        return archs[0]

    return lambda rng, n: [one(rng) for _ in range(n)]


def _ends(space: SearchSpace) -> list[Architecture]:
    """The largest network and the smallest; where multiply-accumulates do not add up, of last and first candidates."""
    try:
        macs = additive_macs(space)
    except UserError:
        return [space.canonical([len(s) - 1 for s in space.slots]), space.canonical([0] * len(space.slots))]
    return [base_network(space, macs), base_network(space, macs.times(-1.0))]


class SupernetScore(Score):
    """The task's metric on `valid` of networks extracted from a trained supernet, with batch norms of their own.

    Norms are recalibrated on the first `calibration` batches of `train` before each is graded, so that no order
    matters; 0: statistics are those of the supernet. limit: batches of `valid`, default all.
    """

    def __init__(
        self,
        space: SearchSpace,
        supernet: Any,
        task: Task,
        *,
        batch_size: int = 256,
        calibration: int = 4,
        limit: int | None = None,
    ) -> None:
        self.space, self.supernet, self.task, self.metric, self.limit = space, supernet, task, task.metric, limit
        drawn = task.batches("train", size=min(batch_size, task.length("train")), seed=0, epoch=0)
        self._calibration = [inputs for inputs, _ in islice(drawn, calibration)]

    def __call__(self, archs: Sequence[Sequence[int]]) -> F:
        return np.array([self._one(self.space.canonical(arch)) for arch in archs], dtype=np.float64)

    def _one(self, arch: tuple[int, ...]) -> float:
        alone = self.supernet.extract(arch).to(memory_format=image_layout(self.task.device))
        with recalibrated(alone, self._calibration) as network:
            return float(self.task.evaluate(network, "valid", limit=self.limit)[self.metric.name])


class Remembered(Score):
    """A score whose answers are kept in a run: none is paid for twice, also after a kill.

    at_once: how many networks the score is asked about at a time; those answers are lost together.
    """

    def __init__(self, score: Score, run: Run, at_once: int = 1) -> None:
        self.score, self.run, self.at_once = score, run, at_once
        self.space, self.metric = score.space, score.metric

    def __call__(self, archs: Sequence[Sequence[int]]) -> F:
        known = [self.space.canonical(arch) for arch in archs]
        keys = {arch: " ".join(map(str, arch)) for arch in known}
        new = [arch for arch, key in keys.items() if not self.run.remembers(key)]
        starts = range(0, len(new), self.at_once)
        for i in progress(starts, f"{self.run.path.name}: networks graded", len(starts)) if len(starts) > 1 else starts:
            some = new[i : i + self.at_once]
            for arch, value in zip(some, self.score(some), strict=True):
                number = float(value) if np.isfinite(value) else None
                self.run.memo(keys[arch], lambda n=number: n)  # type: ignore[misc]
        said = [self.run.memo(keys[arch], lambda: None) for arch in known]
        return np.array([np.nan if value is None else value for value in said], dtype=np.float64)
