"""Fitting for a budget: a share of the samples lies where the budget is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sartor import spaces, workflow
from sartor.choose.solve import land
from sartor.core import Budget
from sartor.predictors.ridge import Ridge
from sartor.spaces.complexity import Complexity
from sartor.targets.store import Store
from sartor.workflow.measuring import around
from tests.fakes import LATENCY, Ragged, additive
from tests.test_devices import Law

SPACE = spaces.get("mobilenet:tiny")


def law(macs: float) -> float:
    """Milliseconds of a device that small networks fit into well."""
    return 0.1 + (macs / 1e6) ** 1.2


def steep(macs: float) -> float:
    """Milliseconds of a device on which large networks take many times what small ones do, and choices do not add."""
    return (macs / 1e6) ** 1.5


def test_networks_around_a_limit_cost_nearly_that() -> None:
    score = additive(SPACE)
    archs = around(SPACE, score, 10.0, 40)
    assert len(archs) > 30
    assert len(set(archs)) == len(archs)
    costs = score(archs)
    assert np.all((costs >= 9.8) & (costs <= 10.0))
    assert around(SPACE, score, 1e6, 40) == []
    assert around(SPACE, score, 10.0, 20) == archs[:20]
    assert around(Ragged(), additive(Ragged()), 4.0, 500), "a small space has some too"


@pytest.mark.parametrize("law", [law, steep])
def test_a_predictor_for_a_limit_is_right_there(law: Callable[[float], float], tmp_path: Path) -> None:
    target, macs = Law(law), Complexity(SPACE, "macs")
    costs = np.array([law(m) for m in macs(SPACE.sample(np.random.default_rng(1), 500))])
    limit = float(0.7 * costs.min())
    errors = []
    with Store(tmp_path / "store.db") as store:
        for near in (None, limit):
            fit = workflow.fit_predictor("ridge", SPACE, target, samples=200, near=near, store=store)
            assert 195 <= fit.report["samples"] + fit.report["left_out"] <= 200, "as many, but none twice"
            noise = [np.random.default_rng(2).normal(size=len(s)) for s in SPACE.slots]
            budget = Budget(fit.predictor, limit)
            found = land(SPACE, noise, [budget], SPACE.canonical((0,) * len(SPACE.slots)), rng=np.random.default_rng(0))
            errors.append(abs(law(float(macs([found.architecture])[0])) / limit - 1))
    assert errors[1] < 0.4 * errors[0]
    assert errors[1] < 0.1
    assert any("near_rmse" in row for row in fit.report["rows"])


def test_what_is_left_out_lies_far_from_the_limit_and_is_at_most_half(tmp_path: Path) -> None:
    with Store(tmp_path / "store.db") as store:
        for near in (None, 1.0, 12.0):
            fit = workflow.fit_predictor("ridge", SPACE, Law(steep), samples=60, near=near, store=store)
            assert fit.report["samples"] >= fit.report["left_out"]
            assert (fit.report["left_out"] > 0) == (near is not None)


def test_a_limit_that_is_out_of_reach_changes_nothing(tmp_path: Path) -> None:
    with Store(tmp_path / "store.db") as store:
        fit = workflow.fit_predictor("ridge", SPACE, Law(law), samples=60, near=1e9, store=store)
    assert (fit.report["samples"], fit.report["left_out"]) == (48, 0)
    archs = workflow.design(SPACE, 48)
    plain = Ridge().fit(SPACE, archs, [law(m) for m in Complexity(SPACE, "macs")(archs)], metric=LATENCY)
    assert fit.predictor(archs[:3]) == pytest.approx(plain(archs[:3]))


def test_a_predictor_that_orders_nothing_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    noise = np.random.default_rng(0)
    for law, words in ((lambda macs: macs / 1e6, 0), (lambda macs: float(noise.uniform(1, 2)), 1)):
        caplog.clear()
        with Store(tmp_path / f"{words}.db") as store:
            workflow.fit_predictor("ridge", SPACE, Law(law), samples=60, store=store)
        assert caplog.text.count("hardly orders networks") == words
