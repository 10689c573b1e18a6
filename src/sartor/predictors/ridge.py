"""Additive ridge regression on the candidates' features: the baseline of every predictor."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from sartor.core import F, Json, Terms, UserError
from sartor.predictors.base import Predictor

if TYPE_CHECKING:
    from torch import Tensor

_STRENGTHS = np.logspace(-8, 2, 41)


def ridge(features: F, values: F, strength: float | None = None) -> tuple[float, F, float, float]:
    """Constant, weights of the features, strength and leave-one-out RMSE of ridge regression.

    features: (n, m); values: (n,).
    """
    mean, spread = features.mean(axis=0), features.std(axis=0)
    spread[spread < 1e-12] = 1.0
    scaled = (features - mean) / spread
    n, centre = len(values), float(values.mean())
    target = values - centre
    # of the columns, not the rows: samples are many, features few
    size, axes = np.linalg.eigh(scaled.T @ scaled)
    size, turned = np.maximum(size, 0.0), scaled @ axes
    shares, squares = turned.T @ target, turned**2
    best = (np.inf, 0.0)
    for tried in _STRENGTHS if strength is None else [strength]:
        shrink = 1.0 / (size + tried * n)
        left = np.maximum(1.0 - 1.0 / n - squares @ shrink, 1e-9)
        best = min(best, (float(np.mean(((target - turned @ (shrink * shares)) / left) ** 2)), float(tried)))
    loo, chosen = best
    weights = axes @ (shares / (size + chosen * n)) / spread
    return centre - float(mean @ weights), np.asarray(weights), chosen, float(np.sqrt(loo))


class Ridge(Predictor):
    """cost = intercept + sum over slots of features(candidate) . weights, features standardised.

    strength: penalty per sample on standardised features; None takes the one with the least exact
    leave-one-out error (r_i / (1 - h_ii), from one eigendecomposition).
    """

    key = "ridge"

    def __init__(self, strength: float | None = None) -> None:
        super().__init__()
        if strength is not None and not 0 < strength < float("inf"):
            raise UserError(f"strength of ridge is {strength!r}; give a positive number, or none to have it chosen.")
        self.strength = strength

    def _fit(self, archs: Sequence[Sequence[int]], values: F) -> dict[str, Json]:
        features = self.space.encode(archs, self.space.feature_map)
        self._const, weights, strength, loo = ridge(features, values, self.strength)
        self._columns = self.space.feature_map @ weights
        return {"strength": strength, "rmse_leave_one_out": loo}

    def _predict(self, archs: Sequence[Sequence[int]]) -> F:
        return np.asarray(self._const + self.space.encode(archs, self._columns), dtype=np.float64)

    def terms(self) -> Terms:
        self._fitted()
        ends = self.space.offsets
        return Terms(self._const, tuple(self._columns[a:b] for a, b in pairwise(ends)))

    def soft(self, gates: tuple[Tensor, ...]) -> Tensor:
        return self.terms().soft(self.space.slots, gates)

    def _arrays(self) -> dict[str, F]:
        return {"const": np.array([self._const]), "columns": self._columns}

    def _restore(self, arrays: dict[str, F]) -> None:
        self._const, self._columns = float(arrays["const"][0]), arrays["columns"]
