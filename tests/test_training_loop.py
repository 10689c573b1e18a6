"""Training works, does what the recipe says, and survives being killed."""

import json
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sartor.core import Optimiser, UserError
from sartor.runs import Run
from sartor.training import tasks
from sartor.training.loop import train
from sartor.training.optimise import cosine, make_optimiser, optimiser_groups, steps_per_epoch
from sartor.training.recipe import Recipe
from tests.toys_text import Bigram, NextToken


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # the child process of the kill test has one as well
    yield
    torch.set_num_threads(before)


def small(dropout: float = 0.1) -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 1, 1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, 2, 1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(128, 10),
    )


def equal(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))


def test_digits_trains_above_90_percent(tmp_path: Path) -> None:
    network = small()
    with Run(tmp_path, {"job": "digits"}, seed=1) as run:
        result = train(network, tasks.get("digits"), Recipe(epochs=5, batch_size=64), run)
        journal = run.journal()
    assert result["metric"] == "accuracy"
    assert result["value"] > 90
    assert result["params"] == sum(p.numel() for p in network.parameters())
    assert (result["epochs"], result["split"]) == (5, "test")
    assert not network.training
    assert [line["epoch"] for line in journal] == [1, 2, 3, 4, 5]
    assert journal[-1]["loss"] < journal[0]["loss"]
    assert journal[-1]["accuracy"] == result["value"]
    json.dumps(result)
    with Run(tmp_path, {"job": "digits"}, seed=1) as run:  # finished: nothing is trained again
        again = train(fresh := small(), tasks.get("digits"), Recipe(epochs=5, batch_size=64), run)
    assert equal(network, fresh)
    assert again["value"] == result["value"]


def test_a_text_task_trains(tmp_path: Path) -> None:
    task, network = NextToken(), Bigram()
    before = task.evaluate(network.eval(), "valid")["loss"]
    with Run(tmp_path, {}) as run:
        recipe = Recipe(epochs=30, batch_size=16, lr=0.5, evaluate_every=0)
        result = train(network, task, recipe, run, split="train", evaluate="valid")
    assert result["value"] == result["loss"] < 0.7 * before
    with Run(tmp_path / "b", {}) as run, pytest.raises(UserError, match="no label smoothing"):
        train(network, task, recipe.override({"label_smoothing": 0.1}), run)


_CHILD = """
import sys
import torch
torch.set_num_threads(1)
from sartor.runs import Run
from sartor.training import tasks
from sartor.training.loop import train
from tests.test_training_loop import RECIPE, small
with Run(sys.argv[1], {"job": 1}, seed=3) as run:
    run.checkpoint_seconds = 0.02
    train(small(), tasks.get("digits"), RECIPE, run)
"""
RECIPE = Recipe(epochs=8, batch_size=50, label_smoothing=0.1)


def saved(checkpoint: Path) -> int:
    return int(torch.load(checkpoint, weights_only=True)["step"]) if checkpoint.exists() else 0


def test_killed_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    task, whole, resumed = tasks.get("digits"), small(), small()
    with Run(tmp_path / "whole", {"job": 1}, seed=3) as run:
        expected = train(whole, task, RECIPE, run)
        journal = run.journal()
    checkpoint, wanted = tmp_path / "killed" / "checkpoint.pt", random.randint(1, 150)
    child = subprocess.Popen([sys.executable, "-c", _CHILD, str(tmp_path / "killed")], cwd=Path(__file__).parents[1])
    try:
        give_up = time.monotonic() + 60
        while saved(checkpoint) < wanted and time.monotonic() < give_up:
            time.sleep(0.005)
        time.sleep(random.uniform(0, 0.03))
    finally:
        child.kill()
        child.wait()
    step = saved(checkpoint)
    assert wanted <= step < RECIPE.epochs * 28
    with Run(tmp_path / "killed", {"job": 1}, seed=3) as run:
        result = train(resumed, task, RECIPE, run)
        assert run.journal() == journal
    assert equal(whole, resumed), f"killed at step {step}"
    assert (result["value"], result["loss"]) == (expected["value"], expected["loss"])


class _Kept:
    """Stops a run at a step, as an exception does."""

    def __init__(self, task: tasks.Classification, after: int) -> None:
        self._task, self._left = task, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def loss(self, net: Any, batch: Any) -> Tensor:
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt
        return self._task.loss(net, batch)


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
@pytest.mark.parametrize("after", [1, 27, 28, 29])
def test_every_moment_around_an_epoch_resumes_alike(tmp_path: Path, after: int, optimiser: Optimiser) -> None:
    task, recipe = tasks.get("digits"), Recipe(epochs=2, batch_size=50, optimiser=optimiser)
    whole, resumed = small(), small()
    with Run(tmp_path / "a", {}) as run:
        train(whole, task, recipe, run)
    with Run(tmp_path / "b", {}) as run:
        run.checkpoint_seconds = 0
        with pytest.raises(KeyboardInterrupt):
            train(small(), _Kept(task, after), recipe, run)
    with Run(tmp_path / "b", {}) as run:
        train(resumed, task, recipe, run)
    assert equal(whole, resumed)


def test_seeds_decide_order_and_dropout(tmp_path: Path) -> None:
    networks: list[nn.Module] = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(len(networks))
        network = small()
        with Run(tmp_path / name, {}, seed=seed) as run:
            train(network, tasks.get("digits"), Recipe(epochs=2, batch_size=200, evaluate_every=0), run)
        networks.append(network)
    assert equal(networks[0], networks[1])
    assert not equal(networks[0], networks[2])


def test_recipe_sets_dropout_and_refuses_divergence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    network, task = small(0.9), tasks.get("digits")
    with Run(tmp_path / "a", {}) as run:
        train(network, task, Recipe(epochs=2, batch_size=700, dropout=0.25), run)
    assert network[8].p == 0.25  # type: ignore[index]
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with Run(tmp_path / "b", {}) as run, pytest.raises(UserError, match=r"loss is .* lower lr=1e\+30"):
        train(plain, task, Recipe(epochs=3, lr=1e30, clip_norm=None, dropout=0.2), run)
    assert "no dropout layer" in caplog.text


def test_bf16_trains(tmp_path: Path) -> None:
    network = small()
    with Run(tmp_path, {}) as run:
        result = train(network, tasks.get("digits"), Recipe(epochs=2, precision="bf16-mixed"), run)
    assert math.isfinite(result["loss"])
    assert all(p.dtype == torch.float32 for p in network.parameters())


def test_cosine_is_a_function_of_the_step() -> None:
    rates = [cosine(s, 100, peak=0.5, warmup=10, start=0.1) for s in range(101)]
    assert rates[0] == 0.1
    assert rates[5] == pytest.approx(0.3)
    assert rates[10] == 0.5
    assert rates[55] == pytest.approx(0.25)
    assert rates[100] == pytest.approx(0)
    assert sorted(rates[10:], reverse=True) == rates[10:]
    assert cosine(0, 10, peak=1.0) == 1.0
    assert cosine(500, 10, peak=1.0, end=0.2) == pytest.approx(0.2)


def test_weight_decay_spares_biases_and_norms() -> None:
    network = small()
    network[0].weight.requires_grad_(False)  # type: ignore[index]
    decayed, plain = optimiser_groups(network, 4e-5)
    assert [tuple(p.shape) for p in decayed["params"]] == [(32, 16, 3, 3), (10, 128)]
    assert len(plain["params"]) == 3 + 4
    assert (decayed["weight_decay"], plain["weight_decay"]) == (4e-5, 0)
    (everything,) = optimiser_groups(network, 4e-5, decay_bias_and_norm=True)
    assert len(everything["params"]) == 9
    assert {g["lr"] for g in make_optimiser(network, "sgd", lr=0.3, weight_decay=1e-4).param_groups} == {0.3}


def test_adamw_decays_by_the_rate_alone_and_spares_what_sgd_spares() -> None:
    network = small()
    before = [p.clone() for p in network.parameters()]
    optimiser = make_optimiser(network, "adamw", lr=0.1, weight_decay=0.5)
    for p in network.parameters():
        p.grad = torch.zeros_like(p)
    optimiser.step()
    decayed = {id(p) for p in optimiser_groups(network, 0.5)[0]["params"]}
    for old, new in zip(before, network.parameters()):
        torch.testing.assert_close(new.detach(), old * (1 - 0.1 * 0.5) if id(new) in decayed else old)


def test_few_steps_leave_statistics_of_the_data_alone(tmp_path: Path) -> None:
    task, still = tasks.get("digits"), {"lr": 1e-12, "warmup_lr": 0.0, "weight_decay": 0.0, "evaluate_every": 0}
    for batch_size in (500, 100):  # 2 steps and 14
        network, norm = small(), nn.BatchNorm2d(1)
        network = nn.Sequential(norm, network)
        with Run(tmp_path / str(batch_size), {}, seed=1) as run:
            train(network, task, Recipe().override({"epochs": 1, "batch_size": batch_size, **still}), run)
            batches = task.batches("trainvalid", size=batch_size, seed=run.torch_seed("batches"), epoch=0)
            means = [float(x.mean()) for (x, *_), _ in batches]
        steps = steps_per_epoch(task, "trainvalid", batch_size)
        wanted = means[0]
        for i, mean in enumerate(means[1:steps], 1):
            wanted += max(0.1, 1 / (i + 1)) * (mean - wanted)
        assert float(norm.running_mean) == pytest.approx(wanted, rel=1e-4)  # type: ignore[arg-type]
        assert norm.momentum == 0.1
    came = small()
    came[1].num_batches_tracked.fill_(1000)  # type: ignore[index, union-attr, operator]
    before = came[1].running_mean.clone()  # type: ignore[index, union-attr, operator]
    with Run(tmp_path / "came", {}, seed=1) as run:
        train(came, task, Recipe().override({"epochs": 1, "batch_size": 1500, **still}), run)
    with Run(tmp_path / "fresh", {}, seed=1) as run:
        fresh = small()
        train(fresh, task, Recipe().override({"epochs": 1, "batch_size": 1500, **still}), run)
    moved = fresh[1].running_mean - before  # type: ignore[index, union-attr, operator]
    torch.testing.assert_close(came[1].running_mean - before, 0.1 * moved)  # type: ignore[index, union-attr, operator]


def test_steps_per_epoch_counts_the_batches() -> None:
    task = tasks.get("digits")
    for size in (100, 1150, 2000):
        assert steps_per_epoch(task, "train", size) == len(list(task.batches("train", size=size, seed=0, epoch=0)))


def test_environment_stays_light() -> None:
    code = "import sys; import sartor.training.recipe; print([m for m in ('torch', 'lightning') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "[]"
