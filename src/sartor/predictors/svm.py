"""Support vector regression with a Gaussian kernel on the features of the choices.

A. J. Smola, B. Schoelkopf, "A tutorial on support vector regression", Statistics and Computing 14, 2004: a loss that
overlooks errors below epsilon, so that few samples carry the prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from sartor.core import F, Json, UserError
from sartor.predictors.base import Predictor
from sartor.predictors.views import soft_views, views

if TYPE_CHECKING:
    from torch import Tensor

_WIDTHS, _COSTS, _EPSILONS = (0.3, 1.0, 3.0), (1.0, 10.0, 100.0), (0.02, 0.1)
_FOLDS = 3
_COMPARED = 600  # samples that hyper-parameters are chosen on
_STEPS = 1_000_000  # of the solver, which barely converges where there is no noise


class SVM(Predictor):
    """cost = const + sum over support vectors s of dual . exp(-gamma |x - s|^2), x as for `pairs`.

    width: gamma, in units of 1 / the variance of x summed over its columns; cost: bound of the dual weights; epsilon:
    error overlooked; both in standard deviations of the values. None chooses it on the training data by the squared
    error of 3 folds, from .3, 1, 3; 1, 10, 100; .02, .1.
    """

    key = "svm"

    def __init__(self, width: float | None = None, cost: float | None = None, epsilon: float | None = None) -> None:
        super().__init__()
        for name, value in (("width", width), ("cost", cost), ("epsilon", epsilon)):
            if value is not None and not 0 < value < float("inf"):
                raise UserError(f"{name} of svm is {value!r}; give a positive number, or none to have it chosen.")
        self.width, self.cost, self.epsilon = width, cost, epsilon

    def _fit(self, archs: Sequence[Sequence[int]], values: F) -> dict[str, Json]:
        x = self._features(archs)
        unit = 1.0 / max(float(x.var(axis=0).sum()), 1e-12)
        centre, spread = float(values.mean()), float(values.std()) or 1.0
        y = (values - centre) / spread
        given = [
            tried if value is None else (value,)
            for value, tried in ((self.width, _WIDTHS), (self.cost, _COSTS), (self.epsilon, _EPSILONS))
        ]
        few = np.random.default_rng(0).permutation(len(y))[:_COMPARED]
        folds = np.array_split(few, min(_FOLDS, len(few)))

        def error(options: tuple[float, ...]) -> float:
            squares = []
            for held in folds:
                train = np.setdiff1d(few, held)
                squares.append((_machine(unit, *options).fit(x[train], y[train]).predict(x[held]) - y[held]) ** 2)
            return float(np.concatenate(squares).mean())

        options = min(product(*given), key=error)
        machine = _machine(unit, *options).fit(x, y)
        self._gamma, self._const = options[0] * unit, centre + spread * float(machine.intercept_[0])
        self._vectors, self._dual = np.asarray(machine.support_vectors_), spread * np.asarray(machine.dual_coef_[0])
        return {**dict(zip(("width", "cost", "epsilon"), options)), "support_vectors": len(self._dual)}

    def _features(self, archs: Sequence[Sequence[int]]) -> F:
        blocks = [block for view in views(self.space, archs) for block in view]
        return np.concatenate([np.zeros((len(archs), 0)), *blocks], axis=1)

    def _predict(self, archs: Sequence[Sequence[int]]) -> F:
        x, s = self._features(archs), self._vectors
        apart = (x**2).sum(axis=1)[:, None] + (s**2).sum(axis=1) - 2.0 * x @ s.T
        return np.asarray(self._const + np.exp(-self._gamma * apart) @ self._dual, dtype=np.float64)

    def soft(self, gates: tuple[Tensor, ...]) -> Tensor:
        import torch

        self._fitted()
        x = torch.cat([block for view in soft_views(self.space, gates) for block in view])
        apart = ((x - x.new_tensor(self._vectors)) ** 2).sum(dim=1)
        out: Tensor = self._const + torch.exp(-self._gamma * apart) @ x.new_tensor(self._dual)
        return out

    def _arrays(self) -> dict[str, F]:
        return {"const": np.array([self._const, self._gamma]), "vectors": self._vectors, "dual": self._dual}

    def _restore(self, arrays: dict[str, F]) -> None:
        self._const, self._gamma = map(float, arrays["const"])
        self._vectors, self._dual = arrays["vectors"], arrays["dual"]


def _machine(unit: float, width: float, cost: float, epsilon: float) -> Any:
    from sklearn.svm import SVR

    return SVR(kernel="rbf", gamma=width * unit, C=cost, epsilon=epsilon, max_iter=_STEPS)
