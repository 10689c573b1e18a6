"""What every score must satisfy: `check_score(score, space)`; fitted ones also `check_round_trip`."""

from __future__ import annotations

import pathlib

import numpy as np
import torch

from sartor.core import METRICS, Score, SearchSpace, SoftScore


def check_score(score: Score, space: SearchSpace, *, tolerance: float = 1e-4, enumerate_below: int = 2_000) -> None:
    """Batched equals single; soft at one-hot and terms equal the score; expectations are exact where they can be.

    tolerance: relative, of float32 soft values; enumerate_below: sizes whose expectation is summed up in full.
    """
    archs = space.sample(np.random.default_rng(0), 12)
    values = score(archs)
    assert score.metric.name in METRICS
    assert score.space == space
    assert values.shape == (12,)
    assert values.dtype == np.float64
    np.testing.assert_allclose([score([a])[0] for a in archs], values, rtol=1e-9, equal_nan=True)
    np.testing.assert_allclose(score(archs[::-1]), values[::-1], rtol=1e-9, equal_nan=True)
    assert score([]).shape == (0,)
    terms = score.terms()
    if terms is not None:
        np.testing.assert_allclose(terms(space, archs), values, rtol=1e-9)
    if not isinstance(score, SoftScore) or not space.slots:
        return
    for arch, value in zip(archs, values):
        gates = tuple(torch.eye(len(s))[k].requires_grad_() for s, k in zip(space.slots, arch))
        soft = score.soft(gates)
        assert soft.shape == ()
        np.testing.assert_allclose(float(soft.detach()), value, rtol=tolerance)
        soft.backward()
        assert any(g.grad is not None and torch.isfinite(g.grad).all() for g in gates)
    if terms is not None and terms.over is None and space.size <= enumerate_below:
        check_expectation(score, space)


def check_expectation(score: SoftScore, space: SearchSpace) -> None:
    """Soft of probabilities is the mean over independently drawn slots."""
    rng = np.random.default_rng(1)
    chances = [rng.dirichlet(np.ones(len(s))) for s in space.slots]
    everything = list(space.enumerate())
    weights = [np.prod([p[k] for p, k, on in zip(chances, a, space.active(a)) if on]) for a in everything]
    np.testing.assert_allclose(sum(weights), 1.0)
    soft = score.soft(tuple(torch.tensor(p) for p in chances))
    np.testing.assert_allclose(float(soft), float(np.dot(weights, score(everything))), rtol=1e-6)


def check_round_trip(score: Score, path: pathlib.Path, space: SearchSpace, target_id: str | None) -> None:
    """A saved predictor predicts the same after loading."""
    from sartor.predictors import Predictor, load

    assert isinstance(score, Predictor)
    score.save(path)
    again = load(path, space=space, target_id=target_id)
    archs = space.sample(np.random.default_rng(2), 20)
    np.testing.assert_array_equal(again(archs), score(archs))
    assert (again.metric, again.target_id, again.stats) == (score.metric, score.target_id, score.stats)
    assert again.hyper() == score.hyper()
