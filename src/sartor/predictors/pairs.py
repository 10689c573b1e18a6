"""Ridge regression with pairwise products of slots: what two choices cost together, not only each alone.

Columns are standardised before they are multiplied, so that a product is an interaction and little else (functional
ANOVA; G. Wahba, Spline Models for Observational Data, 1990, ch. 10). The products of 21 slots of 7 candidates are
10,290 columns; they are never written out, because their Gram matrix is half of (sum of the slots' Gram matrices)^2
- sum of their squares. Pairwise regressions commonly penalise all columns alike; here single columns and products, of
what is chosen and of what is executed, each have a strength of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations_with_replacement, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from sartor.core import F, Json, Terms, UserError
from sartor.predictors.base import Predictor
from sartor.predictors.views import View, feature_blocks, soft_views, views

if TYPE_CHECKING:
    from torch import Tensor

_LEARNT = 4000  # samples at most: the Gram matrices hold their square
_COMPARED = 1000  # of these, for choosing weights: each step of the search costs their cube
_RANGE = (-12.0, 16.0)  # of log weights
_WRITTEN = 10**6  # products of candidates at most: no program solves more, and thousands a slot fill the memory


class Pairs(Predictor):
    """cost = const + x . columns + x . table . x / 2; x: the features chosen and, where the space tells, executed.

    weights: of the groups, the variance each explains relative to the noise, shared by its columns. Groups are single
    columns and products of what is chosen; where the space tells what is executed, also single columns of that,
    products of chosen with executed, and products of executed. None chooses the weights with the least exact
    leave-one-out error (L-BFGS on its gradient, on 1,000 samples at most) for single columns alone, with products, and
    for all groups, and takes the first of the three that is not worse than the best by more than a standard error;
    what it leaves out has weight 0.

    The terms are exact where no weight lies on what is executed and products of candidates are at most a million. Of
    more than 4,000 samples it learns from 4,000 drawn at random. Raises UserError for weights below 0 or not one a
    group.
    """

    key = "pairs"

    def __init__(self, weights: Sequence[float] | None = None) -> None:
        super().__init__()
        if weights is not None and (len(weights) not in (2, 5) or not all(0 <= w < float("inf") for w in weights)):
            raise UserError(
                f"weights of pairs are {list(weights)!r}; give two numbers of 0 or more, five where the space tells "
                "what is executed, or none to have them chosen."
            )
        self.weights = None if weights is None else [float(w) for w in weights]

    # ------------------------------------------------------------------ fitting

    def _fit(self, archs: Sequence[Sequence[int]], values: F) -> dict[str, Json]:
        order = np.random.default_rng(0).permutation(len(archs))[:_LEARNT]
        values, seen = values[order], views(self.space, [archs[i] for i in order])
        if self.weights is not None and len(self.weights) != (2 if len(seen) == 1 else 5):
            raise UserError(
                f"pairs has {len(self.weights)} weights, space {self.space.name!r} needs {2 if len(seen) == 1 else 5}; "
                "give as many, or none to have them chosen."
            )
        x = np.concatenate([block for view in seen for block in view], axis=1)
        mean, spread = x.mean(axis=0), x.std(axis=0)
        inverse = np.where(spread < 1e-12, 0.0, 1.0 / np.maximum(spread, 1e-12))
        z = (x - mean) * inverse
        groups = _groups(z, seen)
        sizes = np.array([float(np.trace(gram)) / len(values) or 1.0 for gram, _ in groups])
        grams = [gram / size for (gram, _), size in zip(groups, sizes)]
        scale = float(values.std()) or 1.0
        target = (values - values.mean()) / scale
        few = slice(_COMPARED)
        chosen = self.weights or _choose([gram[few, few] for gram in grams], target[few])
        weights = np.asarray(chosen, dtype=np.float64)

        project, constant = _solve(grams, weights)
        dual = scale * (project @ target)
        single, double = z.T @ dual, (z.T * dual) @ z
        columns, table = np.zeros_like(single), np.zeros_like(double)
        for (_, mask), weight in zip(groups, weights / sizes):
            if mask.ndim == 1:
                columns += weight * mask * single
            else:
                table += weight * mask * double
        # of features as they are, not standardised
        table, columns = inverse[:, None] * table * inverse, columns * inverse
        self._const = float(values.mean() + scale * (constant @ target) + mean @ table @ mean / 2.0 - mean @ columns)
        self._columns, self._table = columns - table @ mean, table
        left_out = dual / np.diag(project)
        return {"weights": weights.tolist(), "rmse_leave_one_out": float(np.sqrt(np.mean(left_out**2)))}

    # ------------------------------------------------------------------ predicting

    def _predict(self, archs: Sequence[Sequence[int]]) -> F:
        x = np.concatenate([np.zeros((len(archs), 0)), *(b for view in views(self.space, archs) for b in view)], axis=1)
        return np.asarray(self._const + np.einsum("nc,nc->n", x, self._columns + x @ self._table / 2.0))

    def terms(self) -> Terms | None:
        """Exact; None where weight lies on what is executed, which no two choices tell, or products are too many."""
        self._fitted()
        blocks = feature_blocks(self.space)
        ends = np.cumsum([0] + [block.shape[1] for block in blocks])
        if np.any(self._columns[ends[-1] :]) or np.any(self._table[ends[-1] :]):
            return None
        parts = [slice(a, b) for a, b in pairwise(ends.tolist())]
        unary = tuple(block @ self._columns[part] for block, part in zip(blocks, parts))
        among = [(i, j) for j in range(len(blocks)) for i in range(j) if np.any(self._table[parts[i], parts[j]])]
        if sum(len(blocks[i]) * len(blocks[j]) for i, j in among) > _WRITTEN:
            return None
        pair = {(i, j): blocks[i] @ self._table[parts[i], parts[j]] @ blocks[j].T for i, j in among}
        return Terms(self._const, unary, pair)

    def soft(self, gates: tuple[Tensor, ...]) -> Tensor:
        import torch

        terms = self.terms()
        if terms is not None:
            return terms.soft(self.space.slots, gates)
        x = torch.cat([block for view in soft_views(self.space, gates) for block in view])
        out: Tensor = self._const + x @ (x.new_tensor(self._columns) + x.new_tensor(self._table) @ x / 2.0)
        return out

    # ------------------------------------------------------------------ saving

    def _arrays(self) -> dict[str, F]:
        return {"const": np.array([self._const]), "columns": self._columns, "table": self._table}

    def _restore(self, arrays: dict[str, F]) -> None:
        self._const, self._columns, self._table = float(arrays["const"][0]), arrays["columns"], arrays["table"]


def _groups(z: F, seen: Sequence[View]) -> list[tuple[F, F]]:
    """Gram matrix (n, n) of each group and which columns, (columns,), or products, (columns, columns), it has."""
    slots = np.array([i for view in seen for i, block in enumerate(view) for _ in range(block.shape[1])], dtype=int)
    views_of = np.repeat(range(len(seen)), [sum(block.shape[1] for block in view) for view in seen])
    groups = []
    for first, second in sorted(combinations_with_replacement(range(len(seen)), 2), key=max):
        a, b = views_of == first, views_of == second
        left, right = z[:, a] @ z[:, a].T, z[:, b] @ z[:, b].T
        if first == 0:
            groups.append((right, b.astype(np.float64)))
        products = left * right
        for slot in range(len(seen[0])):
            mine = slots == slot
            products -= (z[:, a & mine] @ z[:, a & mine].T) * (z[:, b & mine] @ z[:, b & mine].T)
        mask = np.outer(a, b) & (slots[:, None] != slots)
        # each product of one view is there twice, in the Gram matrix and in the table
        groups.append((products / (2.0 if first == second else 1.0), (mask | mask.T).astype(np.float64)))
    return groups


def _solve(grams: Sequence[F], weights: F) -> tuple[F, F]:
    """P (n, n) and c (n,): dual = P y, constant = c . y of kernel ridge with a free constant and noise of variance 1.

    Leave-one-out residuals are dual / diag(P).
    """
    kernel = np.eye(len(grams[0]))
    for gram, weight in zip(grams, weights):
        kernel += weight * gram
    inverse = np.linalg.inv(kernel)
    sums = inverse.sum(axis=1)
    return inverse - np.outer(sums, sums) / sums.sum(), sums / sums.sum()


def _left_out(logs: F, grams: Sequence[F], y: F) -> tuple[float, F]:
    """Log of the mean squared leave-one-out residual, and its gradient in the log weights."""
    project, _ = _solve(grams, np.exp(logs))
    dual, own = project @ y, np.diag(project)
    residual = dual / own
    error, gradient = float(np.mean(residual**2)) + 1e-30, []
    for gram, weight in zip(grams, np.exp(logs)):
        turned = project @ gram
        change = residual * np.einsum("ij,ij->i", turned, project) - turned @ dual
        gradient.append(2.0 * weight * float(np.mean(residual * change / own)) / error)
    return float(np.log(error)), np.array(gradient)


def _choose(grams: Sequence[F], y: F) -> F:
    """Weights with the least leave-one-out error, of as few groups as are not worse than more by a standard error."""
    from scipy.optimize import minimize

    descend: Any = minimize
    tried = []
    for count in dict.fromkeys((1, 2, len(grams))):
        options = {"bounds": [_RANGE] * count, "options": {"maxiter": 30, "ftol": 1e-5}}
        found = descend(_left_out, np.zeros(count), (grams[:count], y), "L-BFGS-B", jac=True, **options)
        weights = np.exp(np.append(found.x, np.full(len(grams) - count, -np.inf)))
        project, _ = _solve(grams, weights)
        tried.append((weights, (project @ y / np.diag(project)) ** 2))
    best = min((squares for _, squares in tried), key=np.mean)
    return next(
        weights for weights, squares in tried if (squares - best).mean() <= (squares - best).std() / np.sqrt(len(y))
    )
