"""Estimates from few answers: what they promise whatever the answers, and where they ask next."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from sartor.choose.exact import maximise
from sartor.core import METRICS, Budget, F, Score, SearchSpace, UserError
from sartor.quality.estimate import Estimate, NormalScores
from sartor.quality.sampling import ActiveSampling
from tests.contracts.choosers import check_chooser
from tests.contracts.scores import check_score
from tests.fakes import Grid, Ragged, additive, pairwise

ACCURACY, LOSS = METRICS["accuracy"], METRICS["loss"]
QUICK = ("ridge", "pairs", "svm")


class Saturating(Score):
    """Accuracies that crowd at the top and depend on pairs of choices, a few failures to learn among them."""

    def __init__(self, space: SearchSpace, noise: float = 0.0) -> None:
        self.space, self.metric, self.noise = space, ACCURACY, noise
        every = self._hidden(list(space.enumerate()))
        self._low, self._spread = float(np.quantile(every, 0.1)), float(every.std())

    def _hidden(self, archs: Sequence[Sequence[int]]) -> F:
        return additive(self.space, 1)(archs) + 2.0 * pairwise(self.space, 2)(archs)

    def __call__(self, archs: Sequence[Sequence[int]]) -> F:
        hidden = (self._hidden(archs) - self._low) / self._spread
        if self.noise:
            hidden = hidden + np.random.default_rng(len(archs)).normal(0, self.noise, len(archs))
        return np.maximum(95.0 - 60.0 * np.exp(-0.8 * hidden), 10.0)


# ---------------------------------------------------------------------- ranks


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), st.lists(st.floats(-2e6, 2e6), max_size=10))
def test_normal_scores_keep_the_order_and_come_back(known: list[float], others: list[float]) -> None:
    reference = np.array(known)
    distinct = np.unique(reference)
    assume(len(distinct) < 2 or np.diff(distinct).min() > 1e-3)
    scores = NormalScores(reference)
    values = np.sort(np.array([*known, *others]))
    at = scores(values)
    assert np.all(np.diff(at) >= -1e-12)
    assert np.all((np.diff(at) > 0) | (np.diff(values) < 1e-3))
    np.testing.assert_allclose(scores.back(at), values, rtol=1e-6, atol=1e-4)


def test_normal_scores_are_standard_normal_and_equal_values_share_theirs() -> None:
    at = NormalScores(np.arange(1000.0))(np.arange(1000.0))
    assert (abs(at.mean()) < 1e-9, abs(at.std() - 1) < 0.01) == (True, True)
    np.testing.assert_allclose(
        NormalScores(np.array([1.0, 1.0, 2.0, 2.0]))(np.array([1.0, 2.0])), [-0.6745, 0.6745], atol=1e-4
    )
    assert NormalScores(np.array([3.0, 3.0]))(np.array([3.0])).tolist() == [0.0]


# ---------------------------------------------------------------------- the estimate


def estimate_of(
    space: SearchSpace, score: Score, n: int, seed: int = 0, **options: object
) -> tuple[Estimate, list[tuple[int, ...]]]:
    every = list(space.enumerate())
    order = np.random.default_rng(seed).permutation(len(every))
    known = [every[i] for i in order[:n]]
    made = Estimate(space, known, score(known), metric=score.metric, members=QUICK, **options)  # type: ignore[arg-type]
    return made, [every[i] for i in order[n:]]


def test_what_was_not_asked_is_ordered_and_held_by_its_interval() -> None:
    space, score = Grid(6, 4), Saturating(Grid(6, 4), noise=0.1)
    estimate, rest = estimate_of(space, score, 300)
    truth = score(rest)
    assert spearmanr(estimate(rest), truth).statistic > 0.93
    assert estimate.explained > 0.85
    low, high = estimate.interval(rest)
    assert np.all((low <= estimate(rest)) & (estimate(rest) <= high))
    assert 0.8 < np.mean((low <= truth) & (truth <= high)) < 0.98
    assert sum(estimate.weights.values()) > 0.8
    assert all(weight >= 0 for weight in estimate.weights.values())
    check_score(estimate, space)


def test_only_the_order_of_the_answers_counts() -> None:
    space, score = Grid(5, 3), Saturating(Grid(5, 3))
    estimate, rest = estimate_of(space, score, 100)
    bent = Estimate(space, estimate.archs, np.exp(score(estimate.archs) / 10), metric=ACCURACY, members=QUICK)
    np.testing.assert_allclose(bent.normal(rest)[0], estimate.normal(rest)[0], rtol=1e-9, atol=1e-9)


def test_less_can_be_better_and_failures_are_left_out() -> None:
    space = Grid(5, 3)
    estimate, rest = estimate_of(space, Saturating(space), 100)
    values = 100.0 - Saturating(space)(estimate.archs)
    values[:3] = np.nan
    loss = Estimate(space, estimate.archs, values, metric=LOSS, members=QUICK)
    assert len(loss.archs) == 97
    assert spearmanr(loss(rest), estimate(rest)).statistic < -0.95
    assert spearmanr(loss.normal(rest)[0], estimate.normal(rest)[0]).statistic > 0.95


def test_few_answers_make_a_ridge_and_fewer_an_error() -> None:
    space, score = Grid(4, 3), additive(Grid(4, 3))
    known = space.sample(np.random.default_rng(0), 12)
    assert set(Estimate(space, known, score(known), metric=score.metric).weights) == {"ridge"}
    with pytest.raises(UserError, match="3 answers"):
        Estimate(space, known[:3], score(known[:3]), metric=score.metric)


def test_answers_that_are_all_equal_say_nothing_and_break_nothing() -> None:
    space = Grid(4, 3)
    known = list(dict.fromkeys(space.sample(np.random.default_rng(0), 60)))
    estimate = Estimate(space, known, np.full(len(known), 10.0), metric=ACCURACY, members=QUICK)
    np.testing.assert_allclose(estimate(known), 10.0, atol=1e-6)


def test_the_polynomial_is_searched_exactly_and_finds_a_good_network() -> None:
    space, score = Grid(6, 4), Saturating(Grid(6, 4))
    estimate, _ = estimate_of(space, score, 300)
    found = maximise(space, estimate.polynomial(), enumerate_below=0)
    every = list(space.enumerate())
    assert found.status == "optimal"
    assert found.value == pytest.approx(estimate.polynomial()(space, every).max())
    assert np.mean(score(every) > score([found.architecture])[0]) < 0.01  # type: ignore[list-item]


# ---------------------------------------------------------------------- asking


@pytest.mark.parametrize("space", [Ragged(), Grid(6, 4)], ids=["ragged", "grid"])
def test_active_sampling_keeps_the_contract(space: SearchSpace) -> None:
    make = lambda: ActiveSampling(space, metric=ACCURACY, first=8, batch=4, members=("ridge",), seed=2)  # noqa: E731
    check_chooser(make, space, additive(space), rounds=8)


@pytest.mark.parametrize("large", [False, True])
def test_later_questions_are_about_the_best_within_the_budgets(large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if large:
        monkeypatch.setattr("sartor.quality.sampling.ENUMERATE", 0)
    space = Grid(5, 4)
    score, cost = Saturating(space), additive(space, 9)
    every = list(space.enumerate())
    budget = Budget(cost, float(np.quantile(cost(every), 0.4)))
    sampler = ActiveSampling(space, metric=ACCURACY, first=80, batch=10, budgets=[budget], members=("ridge", "pairs"))
    while len(sampler.told) < 110:
        asked = sampler.ask()
        assert all(budget.feasible(c) for c in cost(asked))
        sampler.tell(asked, score(asked))
    inside = score([a for a, c in zip(every, cost(every)) if budget.feasible(c)])
    told = list(sampler.told.values())
    assert np.median(told[80:]) > np.quantile(told[:80], 0.9)
    assert np.mean(inside > max(told)) < 0.01


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_questions_are_never_repeated_and_end(seed: int) -> None:
    space, score = Ragged(), additive(Ragged(), 1)
    sampler = ActiveSampling(space, metric=METRICS["latency_ms"], first=5, batch=7, members=("ridge",), seed=seed)
    while asked := sampler.ask():
        assert not set(asked) & sampler.told.keys()
        sampler.tell(asked, score(asked))
    assert len(sampler.told) == space.size


def test_too_few_random_networks_are_refused() -> None:
    with pytest.raises(UserError, match="first=2"):
        ActiveSampling(Grid(2, 2), metric=ACCURACY, first=2)
