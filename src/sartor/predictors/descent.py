"""How predictors that are networks learn: mini-batches, a cosine, and the weights of the best epoch."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@_one_thread()
def descend(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    held: tuple[Tensor, Tensor] | None,
    *,
    epochs: int,
    stop: int,
    batch: int,
    lr: float,
    weight_decay: float,
    generator: torch.Generator,
) -> int:
    """Train on x (n, ...) and y (n,): Adam, decoupled decay, cosine to 0 over `epochs`, ended after `stop` of them.

    held: inputs and targets that decide the epoch whose weights are kept, 0 for those it began with; None keeps the
    last. Returns that epoch. One thread: the products are small, and on a busy machine threads that wait for each other
    make of seconds minutes.
    """

    def error(rows: Tensor, targets: Tensor) -> float:
        with torch.no_grad():
            return float(nn.functional.mse_loss(network(rows).squeeze(1), targets))

    best, kept, last = error(*held) if held else 0.0, copy.deepcopy(network.state_dict()), 0
    optimiser = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * -(-len(x) // batch))
    for epoch in range(stop):
        for pick in torch.split(torch.randperm(len(x), generator=generator), batch):
            optimiser.zero_grad()
            loss = nn.functional.mse_loss(network(x[pick]).squeeze(1), y[pick])
            loss.backward()
            optimiser.step()
            schedule.step()
        if held and (now := error(*held)) < best:
            best, kept, last = now, copy.deepcopy(network.state_dict()), epoch + 1
    if held:
        network.load_state_dict(kept)
    return last if held else stop
