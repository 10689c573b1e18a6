"""A Gaussian process that learns which slots matter: smooth in each, as much as the samples say.

C. E. Rasmussen, C. K. I. Williams, "Gaussian Processes for Machine Learning", MIT Press 2006: chapter 2, and 5.4 for
the marginal likelihood, which weighs fit against complexity without held-out samples. The support vector machine has
one width for all slots; here each slot has one of its own, as chosen and as executed, and a linear part beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sartor.core import F, Json, UserError
from sartor.predictors.base import Predictor
from sartor.predictors.views import soft_views, views

if TYPE_CHECKING:
    from torch import Tensor

_LEARNT = 2000  # samples at most: a solution costs their cube
_COMPARED = 1000  # of these, for the marginal likelihood
_RATE = 0.1  # of Adam, on logarithms
_NOISE = 1e-6  # variance at least, of the values' own


class GP(Predictor):
    """cost = const + x . columns + sum over samples s of dual . exp(-|x - s|^2), x as for `pairs`, scaled by slot.

    The prior covariance of two networks is signal . exp(-|x - x'|^2) + linear . x . x', with noise. A scale for each
    slot and view, signal, linear and noise are where `steps` steps of Adam from equal scales bring the marginal
    likelihood, on 1,000 samples at most. Of more than 2,000 samples it learns from 2,000 drawn at random.
    """

    key = "gp"

    def __init__(self, steps: int = 60) -> None:
        super().__init__()
        if steps < 1:
            raise UserError(f"steps of gp is {steps}; give 1 or more.")
        self.steps = steps

    def _fit(self, archs: Sequence[Sequence[int]], values: F) -> dict[str, Json]:
        order = np.random.default_rng(0).permutation(len(archs))[:_LEARNT]
        x, values = self._features([archs[i] for i in order]), values[order]
        centre, spread = float(values.mean()), float(values.std()) or 1.0
        y = (values - centre) / spread
        scale, signal, linear, noise = self._likely(x[:_COMPARED], y[:_COMPARED])
        self._scale: F = scale
        self._vectors: F = x * scale
        covariance = signal * np.exp(-_apart(self._vectors, self._vectors)) + linear * self._vectors @ self._vectors.T
        dual = spread * np.linalg.solve(covariance + noise * np.eye(len(y)), y)
        self._const, self._dual = centre, signal * dual
        self._columns: F = linear * self._vectors.T @ dual
        return {"signal": signal, "linear": linear, "noise": spread * float(np.sqrt(noise))}

    def _likely(self, x: F, y: F) -> tuple[F, float, float, float]:
        """Scale of each column, signal, linear part and noise: variances, in units of the values' own."""
        import torch

        blocks = [block.shape[1] for view in views(self.space, [(0,) * len(self.space.slots)]) for block in view]
        group = torch.repeat_interleave(torch.tensor(blocks, dtype=torch.int64))
        inputs, targets, eye = torch.from_numpy(x), torch.from_numpy(y), torch.eye(len(y), dtype=torch.float64)
        # networks are one unit apart on average
        start = -0.5 * float(np.log(max(2.0 * x.var(axis=0).sum(), 1e-12)))
        scales = torch.full((len(blocks),), start, dtype=torch.float64, requires_grad=True)
        rest = torch.tensor([0.0, -3.0, -2.0], dtype=torch.float64, requires_grad=True)
        optimiser = torch.optim.Adam([scales, rest], lr=_RATE)
        for _ in range(self.steps):
            optimiser.zero_grad()
            z = inputs * scales.exp()[group]
            signal, linear, noise = rest.exp()
            inner = z @ z.T
            apart = (torch.diagonal(inner)[:, None] + torch.diagonal(inner) - 2.0 * inner).clamp(min=0.0)
            root = torch.linalg.cholesky(signal * torch.exp(-apart) + linear * inner + (noise + _NOISE) * eye)
            fit = torch.linalg.solve_triangular(root, targets[:, None], upper=False).square().sum()
            loss = 0.5 * fit + torch.log(torch.diagonal(root)).sum()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            signal, linear, noise = rest.exp().tolist()
            return scales.exp()[group].numpy(), signal, linear, noise + _NOISE

    def _features(self, archs: Sequence[Sequence[int]]) -> F:
        blocks = [block for view in views(self.space, archs) for block in view]
        return np.concatenate([np.zeros((len(archs), 0)), *blocks], axis=1)

    def _predict(self, archs: Sequence[Sequence[int]]) -> F:
        z = self._features(archs) * self._scale
        out = self._const + z @ self._columns + np.exp(-_apart(z, self._vectors)) @ self._dual
        return np.asarray(out, dtype=np.float64)

    def soft(self, gates: tuple[Tensor, ...]) -> Tensor:
        import torch

        self._fitted()
        x = torch.cat([block for view in soft_views(self.space, gates) for block in view])
        z = x * x.new_tensor(self._scale)
        apart = ((z - z.new_tensor(self._vectors)) ** 2).sum(dim=1)
        out: Tensor = self._const + z @ z.new_tensor(self._columns) + torch.exp(-apart) @ z.new_tensor(self._dual)
        return out

    def _arrays(self) -> dict[str, F]:
        const = np.array([self._const])
        return {
            "const": const,
            "scale": self._scale,
            "columns": self._columns,
            "vectors": self._vectors,
            "dual": self._dual,
        }

    def _restore(self, arrays: dict[str, F]) -> None:
        self._const, self._scale = float(arrays["const"][0]), arrays["scale"]
        self._columns, self._vectors, self._dual = arrays["columns"], arrays["vectors"], arrays["dual"]


def _apart(a: F, b: F) -> F:
    """(n, m) squared distances."""
    return np.asarray(np.maximum((a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2.0 * a @ b.T, 0.0))
