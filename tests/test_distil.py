"""A loss that wants a teacher's outputs, too."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import nn

from sartor import tasks
from sartor.runs import Run
from sartor.training.distil import Distilled
from sartor.training.loop import train
from sartor.training.recipe import Recipe
from tests.contracts.tasks import check_task


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def test_a_teacher_that_is_followed_costs_nothing_more() -> None:
    task, teacher = tasks.get("digits"), network(0)
    batch = next(iter(task.batches("train", size=32, seed=0, epoch=0)))
    own = task.loss(teacher, batch).item()
    for share in (0.0, 0.3, 1.0):
        assert Distilled(task, teacher, share=share).loss(teacher, batch).item() == pytest.approx((1 - share) * own)
    other = network(1)
    assert Distilled(task, teacher, share=0).loss(other, batch).item() == pytest.approx(task.loss(other, batch).item())
    assert Distilled(task, teacher, share=1).loss(other, batch).item() > 0


def test_it_is_a_task_like_the_one_it_is_of() -> None:
    check_task(Distilled(tasks.get("digits"), network(0)), network(1))
    again = pickle.loads(pickle.dumps(Distilled(tasks.get("digits"), network(0))))  # to other processes
    assert again.metric.name == "accuracy"


def test_a_network_takes_after_its_teacher(tmp_path) -> None:
    """Also after one that knows nothing of the labels."""
    task, teacher, recipe = tasks.get("digits"), network(0), Recipe(epochs=3, evaluate_every=0, label_smoothing=0.1)
    inputs, _ = next(iter(task.batches("test", size=256, seed=0, epoch=0)))
    apart = {}
    for share in (0.0, 1.0):
        pupil = network(1)
        with Run(tmp_path / str(share), {}) as run:
            train(pupil, Distilled(task, teacher, share=share), recipe, run)
        with torch.no_grad():
            apart[share] = float((pupil(*inputs).softmax(1) - teacher(*inputs).softmax(1)).abs().mean())
    assert apart[1.0] < 0.5 * apart[0.0], apart
