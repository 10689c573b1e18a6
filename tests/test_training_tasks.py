"""Tasks keep their contract; the search's view cannot reach the test split."""

import math

import pytest
import torch
from torch import nn

from sartor.core import UserError
from sartor.training import tasks
from tests.contracts.tasks import check_task
from tests.toys_text import Bigram, NextToken


def test_digits_is_a_task() -> None:
    torch.manual_seed(0)
    check_task(tasks.get("digits"), nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))


def test_text_is_a_task() -> None:
    torch.manual_seed(0)
    check_task(NextToken(), Bigram())


def test_describe_has_no_paths_and_tells_splits_apart() -> None:
    task = tasks.get("digits")
    assert task.describe()["examples"] == {"train": 1150, "valid": 288, "test": 359}
    assert "/" not in str(task.describe())
    assert tasks.get("digits", split_seed=1).describe() != task.describe()
    assert tasks.get("digits?resolution=9").describe()["content"] != task.describe()["content"]


def test_accuracy_is_percent_and_loss_is_plain_cross_entropy() -> None:
    task = tasks.get("digits", label_smoothing=0.3)
    values = task.evaluate(lambda x: torch.zeros(len(x), 10), "test")
    assert values["loss"] == pytest.approx(math.log(10), rel=1e-6)
    assert 5 < values["accuracy"] < 15

    batch = next(iter(task.batches("train", size=32, seed=0, epoch=0)))
    sure = nn.functional.one_hot(batch[1], 10) * 20.0
    assert tasks.get("digits").loss(lambda x: sure, batch) < 0.01 < task.loss(lambda x: sure, batch)
    assert task.smoothed(0.0).loss(lambda x: sure, batch) < 0.01


def test_smoothing_through_the_view() -> None:
    view = tasks.for_search(tasks.get("digits"))
    assert tasks.smoothed(view, 0.2).describe()["label_smoothing"] == 0.2
    with pytest.raises(UserError, match="test split"):
        tasks.smoothed(view, 0.2).length("test")
    with pytest.raises(UserError, match="no label smoothing"):
        tasks.smoothed(tasks.for_search(NextToken()), 0.2)


def test_bad_options() -> None:
    for value in (-0.1, 1.0):
        with pytest.raises(UserError, match="label_smoothing"):
            tasks.get("digits", label_smoothing=value)
    task = tasks.get("digits")
    with pytest.raises(UserError, match="size=0"):
        task.batches("train", size=0, seed=0, epoch=0)
    with pytest.raises(UserError, match="limit=0"):
        task.evaluate(nn.Flatten(), "valid", limit=0)


def test_the_view_shows_shape_and_classes_but_not_the_data() -> None:
    view = tasks.for_search(tasks.get("digits"))
    assert (view.classes, view.shape) == (10, (1, 8, 8))  # type: ignore[attr-defined]
    assert not hasattr(view, "data")
    assert not hasattr(tasks.for_search(NextToken()), "classes")
