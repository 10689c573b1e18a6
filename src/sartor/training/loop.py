"""The training loop: plain weights, any task, continued after a kill as if nothing had happened."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sartor.core.errors import UserError
from sartor.core.task import Batch, Split, Task
from sartor.training.devices import Place, check, together
from sartor.training.optimise import EarlyStatistics, cosine, make_optimiser, set_lr, steps_per_epoch
from sartor.training.recipe import Recipe
from sartor.training.tasks import smoothed

if TYPE_CHECKING:
    from sartor.runs import Run

logger = logging.getLogger("sartor")


class Diverged(UserError):
    """A training whose loss is no longer finite."""


class _Meter:
    """Sums since the epoch began and seconds since training began, kept through a kill."""

    def __init__(self, device: torch.device) -> None:
        self.loss = torch.zeros((), dtype=torch.float64, device=device)
        self.batches = 0
        self._before, self._since = 0.0, time.monotonic()

    @property
    def seconds(self) -> float:
        return self._before + time.monotonic() - self._since

    def add(self, loss: torch.Tensor) -> None:
        self.loss += loss.detach().double()
        self.batches += 1

    def take(self) -> float:
        """The mean loss since the last call."""
        mean = float(self.loss) / self.batches
        self.loss.zero_()
        self.batches = 0
        return mean

    def state_dict(self) -> dict[str, Any]:
        return {"loss": float(self.loss), "batches": self.batches, "seconds": self.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loss.fill_(state["loss"])
        self.batches, self._before, self._since = state["batches"], state["seconds"], time.monotonic()


def train(
    network: nn.Module,
    task: Task,
    recipe: Recipe,
    run: Run,
    *,
    split: Split = "trainvalid",
    evaluate: Split = "test",
    devices: int = 1,
) -> dict[str, Any]:
    """Train `network` in place on `split` of `task`; it is left on the task's device in evaluation mode.

    One step of the run is one batch: its randomness comes from the run's streams by step number alone, so the same
    call after a kill ends with the same weights. The journal gets a line per epoch: loss, lr, and on `evaluate` the
    task's metric. Returns metric (name), value, loss (on `evaluate`), epochs, params, seconds (over all sittings).

    devices: GPUs from the task's on, or processes on a CPU, that share every batch. The gradient is that of the whole
    batch, weighed by examples. What differs is the random numbers of dropout, and batch norm: it normalises each share
    by itself (what would join them is for GPUs alone), and the statistics that are kept are of the first device's.

    Raises Diverged when the loss is no longer finite, UserError when the task has no label smoothing to set, and for
    devices that are not there, that a batch is too small for, or that the task cannot be sent to.
    """
    check(devices, torch.device(task.device), min(recipe.batch_size, task.length(split)))
    if recipe.label_smoothing is not None:
        task = smoothed(task, recipe.label_smoothing)
    _set_dropout(network, recipe.dropout)
    work = partial(_train, network=network, task=task, recipe=recipe, split=split, evaluate=evaluate)
    follow = partial(work, run=run.follower())
    with together(devices, torch.device(task.device), recipe.precision, follow) as place:
        return work(place, run=run)


def _train(
    place: Place, *, network: nn.Module, task: Task, recipe: Recipe, run: Run, split: Split, evaluate: Split
) -> dict[str, Any]:
    """What every device does; the first one also evaluates, and returns what `train` does."""
    fabric = place.fabric
    optimiser = make_optimiser(
        network,
        recipe.optimiser,
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov,
        decay_bias_and_norm=recipe.decay_bias_and_norm,
    )
    model, stepper = fabric.setup(network, optimiser)
    per_epoch = steps_per_epoch(task, split, recipe.batch_size)
    total, meter = per_epoch * recipe.epochs, _Meter(fabric.device)
    batches: Iterator[Batch] | None = None
    statistics: EarlyStatistics | None = None  # of what a resumed run has read
    for step in run.steps(total, network=network, optimiser=optimiser, meter=meter):
        epoch, i = divmod(step, per_epoch)
        if batches is None or i == 0:
            seed = run.torch_seed("batches")
            batches = islice(iter(task.batches(split, size=recipe.batch_size, seed=seed, epoch=epoch)), i, None)
        lr = _lr(recipe, step, per_epoch)
        set_lr(optimiser, lr)
        batch, weight = place.share(next(batches))
        torch.manual_seed(run.torch_seed("step", step, *([place.rank] if place.rank else [])))  # dropout
        model.train()
        statistics = statistics or EarlyStatistics(network)
        statistics.step()
        loss = task.loss(model, batch) * weight
        stepper.zero_grad()
        fabric.backward(loss)
        place.average(network)
        if recipe.clip_norm is not None:
            fabric.clip_gradients(model, stepper, max_norm=recipe.clip_norm, error_if_nonfinite=False)
        stepper.step()
        meter.add(place.mean(loss))
        if i + 1 == per_epoch:
            mean = meter.take()
            if place.rank == 0:
                if not mean < float("inf"):
                    raise Diverged(
                        f"the loss is {mean} in epoch {epoch + 1}; lower lr={recipe.lr:g} or lengthen the warm-up."
                    )
                fields: dict[str, Any] = {"epoch": epoch + 1, "loss": mean, "lr": lr}
                if recipe.evaluate_every and (epoch + 1) % recipe.evaluate_every == 0:
                    model.eval()
                    fields[task.metric.name] = task.evaluate(model, evaluate)[task.metric.name]
                run.log("epoch", **fields)
            place.meet(f"epoch {epoch}")
    if statistics is not None:
        statistics.end()
    if place.rank:
        return {}
    model.eval()
    result = task.evaluate(model, evaluate)
    return {
        "metric": task.metric.name,
        "value": result[task.metric.name],
        "loss": result["loss"],
        "split": evaluate,
        "epochs": recipe.epochs,
        "params": sum(p.numel() for p in network.parameters()),
        "seconds": meter.seconds,
    }


def _lr(recipe: Recipe, step: int, per_epoch: int) -> float:
    warmup = round(recipe.warmup * per_epoch)
    return cosine(step, recipe.epochs * per_epoch, peak=recipe.lr, warmup=warmup, start=recipe.warmup_lr)


def _set_dropout(network: nn.Module, p: float | None) -> None:
    if p is None:
        return
    layers = [m for m in network.modules() if isinstance(m, nn.Dropout)]
    if not layers and p > 0:
        logger.warning("dropout=%g has no effect: the network has no dropout layer", p)
    for layer in layers:
        layer.p = p
