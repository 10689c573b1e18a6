"""The training loop: plain weights, any task, continued after a kill as if nothing had happened."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sartor.core.errors import UserError
from sartor.core.memory import keep_freed_memory
from sartor.core.task import Batch, Split, Task
from sartor.data.vision import import_torchvision
from sartor.training.optimise import cosine, set_lr, sgd, steps_per_epoch
from sartor.training.recipe import Recipe
from sartor.training.tasks import smoothed

if TYPE_CHECKING:
    from sartor.runs import Run

logger = logging.getLogger("sartor")


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
    network: nn.Module, task: Task, recipe: Recipe, run: Run, *, split: Split = "trainvalid", evaluate: Split = "test"
) -> dict[str, Any]:
    """Train `network` in place on `split` of `task`; it is left on the task's device in evaluation mode.

    One step of the run is one batch: its randomness comes from the run's streams by step number alone, so the same
    call after a kill ends with the same weights. The journal gets a line per epoch: loss, lr, and on `evaluate` the
    task's metric. Returns metric (name), value, loss (on `evaluate`), epochs, params, seconds (over all sittings).
    Raises UserError when the loss is no longer finite, or when the task has no label smoothing to set.
    """
    if recipe.label_smoothing is not None:
        task = smoothed(task, recipe.label_smoothing)
    _set_dropout(network, recipe.dropout)
    keep_freed_memory()
    import_torchvision()  # Fabric's own imports need one that loads
    from lightning.fabric import Fabric

    device = torch.device(task.device)
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True  # or a resumed run would end with slightly other weights
    fabric = Fabric(
        accelerator=device.type,
        devices=1 if device.type == "cpu" else [device.index or 0],
        precision=recipe.precision,
    )
    optimiser = sgd(
        network,
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov,
        decay_bias_and_norm=recipe.decay_bias_and_norm,
    )
    model, stepper = fabric.setup(network, optimiser)
    per_epoch = steps_per_epoch(task, split, recipe.batch_size)
    total, meter = per_epoch * recipe.epochs, _Meter(device)
    batches: Iterator[Batch] | None = None
    for step in run.steps(total, network=network, optimiser=optimiser, meter=meter):
        epoch, i = divmod(step, per_epoch)
        if batches is None or i == 0:
            seed = run.torch_seed("batches")
            batches = islice(iter(task.batches(split, size=recipe.batch_size, seed=seed, epoch=epoch)), i, None)
        lr = _lr(recipe, step, per_epoch)
        set_lr(optimiser, lr)
        batch = next(batches)
        torch.manual_seed(run.torch_seed("step", step))  # dropout
        model.train()
        loss = task.loss(model, batch)
        stepper.zero_grad()
        fabric.backward(loss)
        if recipe.clip_norm is not None:
            fabric.clip_gradients(model, stepper, max_norm=recipe.clip_norm, error_if_nonfinite=False)
        stepper.step()
        meter.add(loss)
        if i + 1 == per_epoch:
            mean = meter.take()
            if not mean < float("inf"):
                raise UserError(
                    f"the loss is {mean} in epoch {epoch + 1}; lower lr={recipe.lr:g} or lengthen the warm-up."
                )
            fields: dict[str, Any] = {"epoch": epoch + 1, "loss": mean, "lr": lr}
            if recipe.evaluate_every and (epoch + 1) % recipe.evaluate_every == 0:
                model.eval()
                fields[task.metric.name] = task.evaluate(model, evaluate)[task.metric.name]
            run.log("epoch", **fields)
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
    warmup = round(recipe.warmup_epochs * per_epoch)
    return cosine(step, recipe.epochs * per_epoch, peak=recipe.lr, warmup=warmup, start=recipe.warmup_lr)


def _set_dropout(network: nn.Module, p: float | None) -> None:
    if p is None:
        return
    layers = [m for m in network.modules() if isinstance(m, nn.Dropout)]
    if not layers and p > 0:
        logger.warning("dropout=%g has no effect: the network has no dropout layer", p)
    for layer in layers:
        layer.p = p
