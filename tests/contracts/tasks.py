"""What every task must satisfy: `check_task(task, network)`."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from sartor.core import Metric, Split, Task, UserError
from sartor.training.tasks import for_search

SPLITS: tuple[Split, ...] = ("train", "valid", "trainvalid", "test")


def _batches(task: Task, split: Split, **options: int | None) -> list[tuple[tuple[Tensor, ...], Tensor]]:
    given = {"size": 16, "seed": 0, "epoch": 0, "limit": None, **options}
    return list(task.batches(split, **given))  # type: ignore[arg-type]


def same(a: Sequence[tuple[tuple[Tensor, ...], Tensor]], b: Sequence[tuple[tuple[Tensor, ...], Tensor]]) -> bool:
    """The same batches, bit for bit."""
    return len(a) == len(b) and all(
        torch.equal(ta, tb) and len(xa) == len(xb) and all(torch.equal(p, q) for p, q in zip(xa, xb))
        for (xa, ta), (xb, tb) in zip(a, b)
    )


def check_task(task: Task, network: nn.Module, *, calls: int | None = 1) -> None:
    """The whole suite. network: takes the task's inputs; every split must hold at least 32 examples.

    calls: of the network for a batch of an evaluation; None: more than one, as it turns out.
    """
    assert isinstance(task.metric, Metric)
    description = task.describe()
    assert json.loads(json.dumps(description)) == description == task.describe()
    assert task.length("train") + task.length("valid") == task.length("trainvalid")
    for split in SPLITS:
        check_batches(task, split)
    check_numbers(task, network, calls)
    check_view(task, network)
    for call in (task.length, lambda s: _batches(task, s)):
        with pytest.raises(UserError, match="split"):
            call("nonsense")  # type: ignore[arg-type]


def check_batches(task: Task, split: Split) -> None:
    """Sizes, device, limits, and that batches are a function of (split, size, seed, epoch)."""
    batches, n = _batches(task, split), task.length(split)
    sizes = [len(targets) for _, targets in batches]
    assert all(len(x) == len(t) for inputs, t in batches for x in inputs)
    assert all(x.device == torch.device(task.device) for inputs, t in batches for x in (*inputs, t))
    torch.manual_seed(1)  # nothing may hang on global random numbers
    assert same(batches, _batches(task, split))
    assert same(batches[:2], _batches(task, split, limit=2))
    others = _batches(task, split, epoch=1), _batches(task, split, seed=1)
    if split in ("train", "trainvalid"):
        assert sizes == [16] * (n // 16), "a ragged last batch is left out"
        assert [len(t) for _, t in _batches(task, split, size=n + 1)] == [n], "unless it is the only one"
        assert not any(same(batches, other) for other in others)
    else:
        assert sum(sizes) == n
        assert all(same(batches, other) for other in others)


def check_numbers(task: Task, network: nn.Module, calls: int | None) -> None:
    """Loss has gradients, evaluation has none, leaves the mode alone and is repeatable."""
    network.to(task.device)
    loss = task.loss(network, _batches(task, "train", limit=1)[0])
    assert loss.ndim == 0
    assert math.isfinite(loss.item())
    loss.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    seen: list[bool] = []

    def watched(*inputs: Tensor) -> Tensor:
        seen.append(torch.is_grad_enabled() or network.training)
        out: Tensor = network(*inputs)
        return out

    network.eval()
    for split in SPLITS:
        values = task.evaluate(watched, split)
        assert {"loss", task.metric.name} <= set(values)
        assert all(math.isfinite(v) for v in values.values())
        assert values == task.evaluate(network, split)
    assert not any(seen)
    if calls is not None:
        before = len(seen)
        task.evaluate(watched, "train", limit=1)
        assert len(seen) == before + calls
    network.train()
    task.evaluate(network, "valid", limit=1)
    assert network.training


def check_view(task: Task, network: nn.Module) -> None:
    """A search sees the same task without the test split."""
    view = for_search(task)
    assert for_search(view) is view
    assert same(_batches(view, "train"), _batches(task, "train"))
    assert view.describe() == task.describe()
    assert view.evaluate(network.eval(), "valid") == task.evaluate(network, "valid")
    for read in (view.length, lambda s: _batches(view, s), lambda s: view.evaluate(network, s)):
        with pytest.raises(UserError, match="test split"):
            read("test")
