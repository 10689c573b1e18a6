"""What searching and training share: weight decay groups, the optimiser, the learning rate of a step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import torch
from torch import nn

from sartor.core.task import Split, Task
from sartor.core.types import Optimiser

_NORMS = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.LocalResponseNorm,
)


def optimiser_groups(
    network: nn.Module, weight_decay: float, decay_bias_and_norm: bool = False
) -> list[dict[str, Any]]:
    """Trainable parameters as optimiser groups: decayed, and those without decay (biases, normalisation layers)."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    seen: set[nn.Parameter] = set()
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter in seen or not parameter.requires_grad:
                continue
            seen.add(parameter)
            spared = not decay_bias_and_norm and (name.endswith("bias") or isinstance(module, _NORMS))
            (plain if spared else decayed).append(parameter)
    groups = ({"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0})
    return [group for group in groups if group["params"]]


def make_optimiser(
    network: nn.Module,
    kind: Optimiser,
    *,
    lr: float,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    decay_bias_and_norm: bool = False,
) -> torch.optim.Optimizer:
    """An optimiser of the trainable parameters of a network (or a container of some), grouped by `optimiser_groups`.

    momentum: of the gradient; AdamW has it, too, beside squares that it averages over some 50 steps, as "Attention Is
    All You Need" does (.98). weight_decay: AdamW's is times lr, not in the gradient. nesterov: SGD alone has it.
    """
    groups = optimiser_groups(network, weight_decay, decay_bias_and_norm)
    if kind == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=(momentum, 0.98))
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov)


def cosine(step: int, total: int, *, peak: float, warmup: int = 0, start: float = 0.0, end: float = 0.0) -> float:
    """Learning rate of `step` (0 to total - 1): linear from `start` to `peak` in `warmup` steps, cosine to `end`."""
    if step < warmup:
        return start + (peak - start) * step / warmup
    done = min(1.0, (step - warmup) / max(1, total - warmup))
    return end + (peak - end) * (1 + math.cos(math.pi * done)) / 2


def linear(step: int, total: int, *, peak: float, warmup: int = 0) -> float:
    """Learning rate of `step` (0 to total - 1): linear from 0 to `peak` in `warmup` steps, linear to 0."""
    return peak * (step / warmup if step < warmup else 1 - min(1.0, (step - warmup) / max(1, total - warmup)))


Schedule: TypeAlias = Literal["cosine", "linear"]
SCHEDULES: dict[Schedule, Callable[..., float]] = {"cosine": cosine, "linear": linear}


class EarlyStatistics:
    """Running statistics of batch norms that forget the zeros and ones they began with: a plain mean at first.

    A deep network's variances can be a thousandth of that one, whose share after 50 steps at the usual momentum of 0.1
    is as large as they are: MobileNetV2 was at chance after 48 steps, and at 45 % with the statistics as they were.
    Statistics that a network came with count as the batches they are of.
    """

    def __init__(self, network: nn.Module) -> None:
        self._norms = [
            (norm, norm.momentum, int(norm.num_batches_tracked))
            for norm in network.modules()
            if isinstance(norm, nn.modules.batchnorm._BatchNorm)
            and norm.momentum
            and norm.num_batches_tracked is not None
        ]
        self._steps = 0

    def step(self) -> None:
        """Before each step; from the one on at which the momentum is the larger share there is nothing to do."""
        young = []
        for norm, momentum, before in self._norms:
            share = 1 / (before + self._steps + 1)
            norm.momentum = max(momentum, share)
            if share > momentum:
                young.append((norm, momentum, before))
        self._norms, self._steps = young, self._steps + 1

    def end(self) -> None:
        """After the last step, which may come early."""
        for norm, momentum, _ in self._norms:
            norm.momentum = momentum


def set_lr(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """The same learning rate for all groups."""
    for group in optimiser.param_groups:
        group["lr"] = lr


def steps_per_epoch(task: Task, split: Split, size: int) -> int:
    """Batches of one shuffled epoch: a ragged last batch is left out unless it is the only one."""
    return max(1, task.length(split) // size)


def images_per_epoch(task: Task, split: Split, size: int) -> int:
    """Examples of one shuffled epoch."""
    return steps_per_epoch(task, split, size) * min(size, task.length(split))
