"""Accuracies on a task from many on another: what is learnt of tasks that differ by scale, offset and noise."""

from __future__ import annotations

import numpy as np
import pytest

from sartor.core import F, UserError
from sartor.quality.meta import WAYS, MetaAccuracy
from tests.contracts.scores import check_score
from tests.fakes import Grid

SPACE = Grid(17, 2)
WEIGHTS, PAIRS = np.random.default_rng(5).normal(size=17), 0.2 * np.random.default_rng(6).normal(size=(17, 17))
FAST = {"steps": 300}


def good(archs: list[tuple[int, ...]]) -> F:
    a = np.array(archs, dtype=float)
    out: F = 3 * np.tanh((a @ WEIGHTS + ((a @ PAIRS) * a).sum(1)) / 4)
    return out


def tasks(seed: int):
    """Pairs of a proxy and ten of a target, and what the target makes of 300 others."""
    rng = np.random.default_rng(seed)
    many, few, others = (SPACE.sample(rng, n) for n in (200, 10, 300))
    proxy = 50 + 5 * good(many) + rng.normal(size=200) * 0.5
    target = 70 + 2 * good(few) + rng.normal(size=10) * 0.3
    return (many, proxy), (few, target), others, 70 + 2 * good(others)


def errors(how: str, draws: int = 3) -> tuple[float, float]:
    """(RMSE, correlation), means over draws."""
    found = []
    for seed in range(draws):
        proxy, target, others, right = tasks(seed)
        said = MetaAccuracy(SPACE, proxy, target, how=how, seed=seed, **FAST)(others)
        found.append((np.sqrt(np.mean((said - right) ** 2)), np.corrcoef(said, right)[0, 1]))
    rmse, correlation = np.mean(found, axis=0)
    return float(rmse), float(correlation)


def test_ten_pairs_are_enough_behind_many_of_a_proxy() -> None:
    alone, _ = errors("direct")
    for how in ("episode", "calibrated", "fine-tune"):
        rmse, correlation = errors(how)
        assert rmse < 0.7 * alone, how
        assert correlation > 0.9, how


def test_a_proxy_alone_orders_well_and_says_the_wrong_numbers() -> None:
    rmse, correlation = errors("transfer", 2)
    assert rmse > 10
    assert correlation > 0.9


@pytest.mark.parametrize("how", WAYS)
def test_every_way_is_a_score(how) -> None:
    proxy, target, *_ = tasks(0)
    many, values = proxy
    failed = (many, np.where(np.arange(200) == 3, np.nan, values))
    check_score(MetaAccuracy(SPACE, failed, target, how=how, steps=3), SPACE)


def test_the_same_seed_says_the_same() -> None:
    proxy, target, others, _ = tasks(0)
    one, again, other = (MetaAccuracy(SPACE, proxy, target, seed=seed, steps=5)(others) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


def test_what_is_refused() -> None:
    proxy, target, *_ = tasks(0)
    with pytest.raises(UserError, match="unknown way"):
        MetaAccuracy(SPACE, proxy, target, how="maml")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="two are needed"):
        MetaAccuracy(SPACE, proxy, ([(0,) * 17], np.array([50.0])))
