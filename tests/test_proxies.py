"""What early training and untrained networks tell: formulas by hand, and what holds for every proxy."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from sartor import spaces, tasks
from sartor.core import UserError
from sartor.methods import SETTINGS
from sartor.quality.early import Schedule, bte, checksum, early_losses, factors, most, neg_fraction, tse, tse_ema
from sartor.quality.proxies import PROXIES, Material, ProxyScore, grad_norm, snip, synflow
from sartor.spaces.channels import Channels
from tests.contracts.scores import check_score

LOSSES = np.array([[2.0, 1.0], [1.5, 1.1], [1.2, 1.21]])
POSITIVE = arrays(np.float64, st.tuples(st.integers(2, 4), st.integers(1, 5)), elements=st.floats(0.01, 100.0))


# ---------------------------------------------------------------------- formulas


def test_bte_by_hand() -> None:
    assert bte(LOSSES) == pytest.approx(0.25 * 0.2 + 0.1 * 0.1)
    assert bte(LOSSES, "clipped") == pytest.approx(0.25 * 0.2)
    assert neg_fraction(LOSSES) == 0.5


def test_two_epochs_of_bte_are_relative_improvements() -> None:
    assert bte(LOSSES[:2]) == pytest.approx(0.25 - 0.1)


def test_tse_by_hand() -> None:
    assert tse(LOSSES) == pytest.approx(-8.01)
    assert tse(LOSSES, last=1) == pytest.approx(-2.41)
    assert tse_ema(LOSSES[:1]) == -1.5
    assert tse_ema(LOSSES[:2]) == pytest.approx(-(0.1 * 1.5 + 0.9 * 1.3))


@given(POSITIVE, st.floats(0.1, 10.0))
def test_bte_does_not_see_the_scale_of_losses(losses: np.ndarray, scale: float) -> None:
    for mode in ("literal", "clipped"):
        assert bte(losses * scale, mode) == pytest.approx(bte(losses, mode), rel=1e-6, abs=1e-9)  # type: ignore[arg-type]


def test_no_loss_is_no_division_by_zero() -> None:
    assert np.isfinite(factors(np.array([[0.0], [0.0]]))).all()


@given(POSITIVE, st.data())
def test_what_a_clipped_bte_can_still_become_is_a_bound(losses: np.ndarray, data: st.DataObject) -> None:
    epochs = data.draw(st.integers(1, len(losses)))
    trained = data.draw(st.integers(0, losses.shape[1]))
    known = losses[:epochs].copy()
    if epochs > 1:
        known[-1, trained:] = math.nan
    assert most(known) >= bte(losses, "clipped") - 1e-12


def test_one_epoch_tells_nothing() -> None:
    with pytest.raises(UserError, match="at least 2 epochs"):
        bte(LOSSES[:1])


# ---------------------------------------------------------------------- training


def squared(network: nn.Module, batch: object) -> torch.Tensor:
    ((x,), y) = batch  # type: ignore[misc]
    loss: torch.Tensor = ((network(x) - y) ** 2).mean()
    return loss


def straight() -> list[tuple[tuple[torch.Tensor], torch.Tensor]]:
    return [((torch.tensor([[1.0], [2.0]]),), torch.tensor([[2.0], [4.0]])), ((torch.ones(1, 1),), torch.ones(1, 1))]


def test_losses_are_those_before_each_step() -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    plan = Schedule(epochs=2, lr=0.1, momentum=0.0, weight_decay=0.0)
    losses = early_losses(network, squared, lambda epoch: straight(), plan)
    w, expected = 0.0, []
    for _ in range(2):
        expected.append([])
        for (x,), y in straight():
            expected[-1].append(float(((w * x - y) ** 2).mean()))
            w -= 0.1 * float((2 * x * (w * x - y)).mean())
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert network.weight.item() == pytest.approx(w)


@pytest.mark.parametrize("change", [lambda e: straight()[:: 1 - 2 * (e % 2)], lambda e: straight()[: 2 - e]])
def test_other_batches_are_refused(change: object) -> None:
    with pytest.raises(UserError, match="the same batches in the same order"):
        early_losses(nn.Linear(1, 1), squared, change, Schedule(epochs=2))  # type: ignore[arg-type]


@given(st.integers(0, 2**32 - 1), st.sampled_from([torch.float32, torch.float64, torch.uint8, torch.float16]))
def test_a_checksum_sees_every_bit_and_its_place(seed: int, kind: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randint(256, (4, 3), generator=generator).to(kind), torch.arange(4)
    at = tuple(int(torch.randint(n, (), generator=generator)) for n in x.shape)
    other = x.clone()
    other[at] = x[at] + 1 if kind != torch.uint8 else 255 - x[at]
    first = checksum(((x,), y))
    assert torch.equal(first, checksum(((x.clone(),), y.clone())))
    assert not torch.equal(first, checksum(((other,), y)))
    assert not torch.equal(first, checksum(((x,), y.flip(0))))
    assert not torch.equal(checksum(((x.flatten().sort()[0],), y)), checksum(((x.flatten().sort()[0].flip(0),), y)))


def test_shuffled_training_data_are_refused() -> None:
    task = tasks.get("digits")
    network = spaces.get("nas-bench-201?width=4&cells=1&resolution=8&channels=1").network((3,) * 6)
    with pytest.raises(UserError, match="neither shuffled nor augmented"):
        early_losses(
            network,
            task.loss,
            lambda epoch: task.batches("train", size=32, seed=0, epoch=epoch, limit=2),
            Schedule(epochs=2),
        )


def test_the_hopeless_are_not_trained_on() -> None:
    asked: list[int] = []

    def give_up(losses: np.ndarray) -> bool:
        asked.append(len(losses))
        return True

    losses = early_losses(nn.Linear(1, 1), squared, lambda e: straight(), Schedule(epochs=3), hopeless=give_up)
    assert asked == [2]
    assert np.isfinite(losses[0]).all()
    assert np.isnan(losses[2]).all()


# ---------------------------------------------------------------------- untrained networks


def fixed() -> tuple[nn.Module, Material]:
    network = nn.Sequential(nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[1.0, -2.0]]))
    batch = ((torch.tensor([[1.0, 3.0]]),), torch.tensor([[0.0]]))
    return network, Material(lambda: [batch], squared)


def test_gradients_by_hand() -> None:
    # output -5, slope of the loss -10: gradient (-10, -30)
    assert grad_norm(*fixed()) == pytest.approx(math.hypot(10, 30))
    assert snip(*fixed()) == pytest.approx(1 * 10 + 2 * 30)
    assert synflow(*fixed()) == pytest.approx(1 + 2)


@pytest.mark.parametrize("name", list(PROXIES))
def test_every_proxy_is_a_score(name: str) -> None:
    space = spaces.get("nas-bench-201?width=4&cells=1&resolution=8&channels=1")
    score = ProxyScore(space, tasks.get("digits"), name, batch_size=16, limit=2)
    check_score(score, space)
    assert all(seconds > 0 for seconds in score.seconds.values())
    dead = score([(0,) * 6])[0]
    best = score([(3,) * 6])[0]
    assert not dead > best


def test_the_method_can_be_set_to_every_proxy() -> None:
    assert get_args(SETTINGS["lightnas-channels"].model_fields["proxy"].annotation) == tuple(PROXIES)


def test_an_unknown_proxy_names_the_known() -> None:
    space = spaces.get("nas-bench-201?width=4&cells=1&resolution=8&channels=1")
    with pytest.raises(UserError, match="bte-clipped"):
        ProxyScore(space, tasks.get("digits"), "btee")


def test_synflow_sees_every_layer_behind_saturating_activations() -> None:
    space = Channels(spaces.get("mobilenet:tiny"), (1,) * 9)
    score = ProxyScore(space, tasks.get("digits"), "synflow")
    narrow = [[0 if j == i else k for j, k in enumerate(space.unscaled)] for i in range(len(space.slots) - 1)]
    values = score([space.unscaled, *narrow])
    assert len(set(values)) == len(values)


def test_a_vote_is_the_sum_of_standings_among_networks_of_the_space() -> None:
    space, task = spaces.get("nas-bench-201?width=4&cells=1&resolution=8&channels=1"), tasks.get("digits")
    one, other, both = (ProxyScore(space, task, name, batch_size=16) for name in ("jacob-cov", "synflow", "vote"))
    archs = space.sample(np.random.default_rng(3), 12)
    said = [np.argsort(np.argsort(score(archs))) for score in (one, other)]
    whole = np.isfinite(one(archs))
    votes = both(archs)
    np.testing.assert_array_equal(np.isfinite(votes), whole)
    for i in np.flatnonzero(whole):
        for j in np.flatnonzero(whole):
            if all(ranks[i] > ranks[j] for ranks in said):
                assert votes[i] > votes[j]
