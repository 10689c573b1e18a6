"""How well a network learns in its first epochs: batchwise training estimation and sums of training losses.

BTE: X. Luo et al., "LightNAS", Definition 4.1 of the thesis. TSE: B. Ru et al., "Speedy Performance Estimation for
Neural Architecture Search", NeurIPS 2021. All are made of one array, losses (epochs, batches): the loss of each batch
as it is trained on, before the step that it leads to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import nn

from sartor.core import Batch, F, UserError

Mode = Literal["literal", "clipped"]
_LEAST = 1e-12  # of a loss that is divided by
_WHOLE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes
_ODD = 0x1E3779B97F4A7C15  # multiplies whole numbers of 64 bits one to one


def factors(losses: F) -> F:
    """(epochs - 1, batches): by which share the loss of each batch falls from one epoch to the next; 0 of no loss.

    Raises UserError for fewer than two epochs.
    """
    losses = np.asarray(losses, dtype=np.float64)
    if losses.ndim != 2 or len(losses) < 2:
        raise UserError(
            f"losses of shape {losses.shape} tell of no progress; give (epochs, batches) with at least 2 epochs."
        )
    before = losses[:-1]
    result: F = np.where(before > _LEAST, (before - losses[1:]) / np.maximum(before, _LEAST), 0.0)
    return result


def bte(losses: F, mode: Mode = "literal") -> float:
    """Batchwise training estimation, Definition 4.1: sum over batches of the product over epochs of `factors`.

    Higher is better. Only scores of equal epochs, batches, order and initialisation can be compared. mode: as published
    two rising losses in a row count like two falling ones, and more, as nothing bounds a rise; `clipped` takes a factor
    below 0 as 0, so that each epoch more makes the score smaller.
    """
    steps = factors(losses)
    return float(np.prod(steps if mode == "literal" else np.maximum(steps, 0.0), axis=0).sum())


def neg_fraction(losses: F) -> float:
    """Share of factors below 0: how much of a literal BTE may be an accident of signs."""
    return float((factors(losses) < 0).mean())


def tse(losses: F, last: int | None = None) -> float:
    """Minus the sum of the training losses, of the `last` epochs only where given (TSE-E)."""
    return -float(np.asarray(losses, dtype=np.float64)[-(last or 0) :].sum())


def tse_ema(losses: F, newest: float = 0.9) -> float:
    """Minus the moving average of the epochs' mean losses after the last one (TSE-EMA).

    newest: weight of each epoch's loss against those before it, as in the authors' code.
    """
    means = np.asarray(losses, dtype=np.float64).mean(axis=1)
    average = means[0]
    for mean in means[1:]:
        average = (1 - newest) * average + newest * mean
    return -float(average)


def most(losses: F) -> float:
    """What a clipped BTE can still become. losses: (epochs so far, batches), the last row NaN where not trained yet.

    A factor is at most 1, since no loss falls below 0; a batch that has not improved in one epoch adds nothing.
    """
    losses = np.asarray(losses, dtype=np.float64)
    if len(losses) < 2:
        return float(losses.shape[-1])
    steps = factors(losses)
    return float(np.prod(np.where(np.isnan(steps), 1.0, np.clip(steps, 0.0, 1.0)), axis=0).sum())


@dataclass(frozen=True)
class Schedule:
    """How networks are trained for a while. Constant lr: of a cosine over hundreds of epochs it is the beginning.

    epochs; lr, momentum (Nesterov), weight_decay: of SGD, as in NAS-Bench-201.
    """

    epochs: int = 3
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4


def early_losses(
    network: nn.Module,
    loss: Callable[[nn.Module, Batch], torch.Tensor],
    batches: Callable[[int], Iterable[Batch]],
    schedule: Schedule,
    *,
    hopeless: Callable[[F], bool] | None = None,
) -> F:
    """(epochs, batches) losses of a network that is trained in place, on its device.

    batches: those of an epoch, counted from 0; the same in the same order every epoch, which is checked at its end.
    hopeless: from the second epoch on told of the losses so far some eight times an epoch, rows not trained yet left
    out and entries NaN; where it says so, training ends and the rest stays NaN. A loss that is not finite ends it after
    its epoch. A device is waited for at these points and nowhere else.

    Raises UserError when an epoch has other batches than the first.
    """
    optimiser = torch.optim.SGD(
        network.parameters(),
        lr=schedule.lr,
        momentum=schedule.momentum,
        weight_decay=schedule.weight_decay,
        nesterov=schedule.momentum > 0,
    )
    network.train()
    rows: list[list[torch.Tensor]] = []
    first = torch.empty(0)
    out = np.full((schedule.epochs, 0), math.nan)
    for epoch in range(schedule.epochs):
        rows.append([])
        seen: list[torch.Tensor] = []
        for i, batch in enumerate(batches(epoch)):
            if epoch and i == len(first):
                raise _shuffled(epoch, i)
            seen.append(checksum(batch))
            value = loss(network, batch)
            optimiser.zero_grad(set_to_none=True)
            value.backward()
            optimiser.step()
            rows[-1].append(value.detach())
            if epoch and hopeless is not None and (i + 1) % max(1, len(first) // 8) == 0:
                out = _filled(rows, schedule.epochs, len(first))
                if hopeless(out[: epoch + 1]):
                    return out
        marks = torch.stack(seen) if seen else torch.empty(0)
        first = first if epoch else marks
        if len(marks) < len(first):
            raise _shuffled(epoch, len(marks))
        if not torch.equal(marks, first):
            raise _shuffled(epoch, int((marks != first).nonzero()[0]))
        out = _filled(rows, schedule.epochs, len(first))
        if not np.isfinite(out[epoch]).all():
            return out
    return out


def checksum(batch: Batch) -> torch.Tensor:
    """One whole number that tells a batch from others, on the device where it is: every bit counts, and its place."""
    inputs, targets = batch
    total = torch.zeros((), dtype=torch.int64, device=targets.device)
    for tensor in (*inputs, targets):
        bits = tensor.detach().contiguous().view(_WHOLE[tensor.element_size()]).flatten().long()
        places = torch.arange(1, 2 * len(bits), 2, device=bits.device) * _ODD
        total = total * _ODD + (bits * (places ^ (places >> 32))).sum()  # overflow wraps, the same everywhere
    return total


def _shuffled(epoch: int, i: int) -> UserError:
    return UserError(
        f"batch {i + 1} of epoch {epoch + 1} is not the one of epoch 1: the loss of a batch is compared from epoch to "
        "epoch, so give the same batches in the same order, neither shuffled nor augmented."
    )


def _filled(rows: list[list[torch.Tensor]], epochs: int, batches: int) -> F:
    out = np.full((epochs, batches), math.nan)
    for epoch, row in enumerate(rows):
        out[epoch, : len(row)] = torch.stack(row).double().cpu().numpy() if row else []
    return out
