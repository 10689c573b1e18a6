"""Accuracy on a task from a few networks trained on it and many trained on a smaller one.

X. Luo et al., "Domino", thesis 5.3.3, Eq. 5.4 - 5.6: a perceptron, 128 - 64 - 1, is meta-learned (C. Finn et al.,
"MAML", ICML 2017) on pairs of network and accuracy of a proxy task, and adapted by gradient descent to as few as ten
pairs of the target. As printed, a task is one pair, the same for the inner and the outer loss, so that nothing is asked
about what was not seen: `pair`, with plain descent around it, Eq. 5.6. `episode` (ours) draws disjoint pairs for the
two, and gives each episode a scale and an offset of its own, which is what changes from proxy to target. Rates, steps
and batches are not published.

The thesis compares three others: `direct`, on the target's pairs alone; `transfer`, on the proxy's alone; `fine-tune`,
on the proxy's, then on the target's. `calibrated` (ours) is `transfer` with the one scale and offset that bring it
nearest to the target's pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import mse_loss

from sartor.core import METRICS, F, Metric, Score, SearchSpace
from sartor.core.errors import UserError, unknown

How: TypeAlias = Literal["episode", "pair", "calibrated", "direct", "transfer", "fine-tune"]
WAYS = get_args(How)
Pairs: TypeAlias = tuple[Sequence[Sequence[int]], F]
Weights: TypeAlias = dict[str, Tensor]

_SUPPORT, _QUERY, _BATCH = 10, 32, 64
_INNER, _ADAPTED = 1, 10  # gradient steps of an episode, and of the adaptation


class MetaAccuracy(Score):
    """A predictor for the target task. proxy, target: (architectures, accuracies), in percent.

    how: one of `WAYS`; steps: of the outer loop, and of plain training; inner_lr, outer_lr: of gradient descent on a
    task, and of what is around it, Adam, with `pair` plain descent as printed; seed: of initial weights and draws.
    Accuracies are standardised, the proxy's and the target's by their own mean and deviation. Raises UserError where
    fewer than two pairs are numbers, and `calibrated` where the proxy does not order the target's.
    """

    def __init__(
        self,
        space: SearchSpace,
        proxy: Pairs,
        target: Pairs,
        *,
        how: How = "episode",
        steps: int = 1000,
        inner_lr: float = 0.01,
        outer_lr: float = 1e-3,
        metric: Metric = METRICS["accuracy"],
        seed: int = 0,
    ) -> None:
        if how not in WAYS:
            raise unknown("way to learn accuracies", how, WAYS)
        self.space, self.metric, self.how = space, metric, how
        self.steps, self.inner_lr, self.outer_lr, self.seed = steps, inner_lr, outer_lr, seed
        self._torch = torch.Generator().manual_seed(seed)
        self.network = self._fresh()
        (x, y, *moments), (few_x, few_y, *own) = (self._standard(*pairs) for pairs in (proxy, target))
        self.mean, self.spread = own
        start: Weights = {name: w.detach() for name, w in self.network.named_parameters()}
        if how == "direct":
            self.weights = self._trained(start, few_x, few_y)
        elif how in ("episode", "pair"):
            learnt = self._meta(start, x, y)
            self.weights = self._descended(learnt, few_x, few_y, _ADAPTED)
        else:
            self.weights = self._trained(start, x, y)
            if how == "transfer":
                self.mean, self.spread = moments
            elif how == "fine-tune":
                self.weights = self._descended(self.weights, few_x, few_y, _ADAPTED)
            else:
                said = self._said(few_x)
                slope, offset = np.polyfit(said, few_y.numpy(), 1) if said.std() > 0 else (0.0, 0.0)
                if slope <= 0:
                    raise UserError(
                        f"the proxy orders the {len(few_x)} networks of the target the wrong way round, or not at all: "
                        "give it more epochs or classes, or more targets."
                    )
                self.mean, self.spread = self.mean + self.spread * offset, self.spread * slope

    def __call__(self, archs: Sequence[Sequence[int]]) -> F:
        x = torch.tensor(self.space.encode(self.space.canonicals(archs), self.space.feature_map), dtype=torch.float32)
        return self.mean + self.spread * self._said(x)

    # ------------------------------------------------------------------ learning

    def _meta(self, weights: Weights, x: Tensor, y: Tensor) -> Weights:
        """Eq. 5.4 - 5.6: weights that one step of descent on a task makes good for it."""
        weights = {name: w.detach().clone().requires_grad_() for name, w in weights.items()}
        outer = torch.optim.SGD if self.how == "pair" else torch.optim.Adam
        optimiser: torch.optim.Optimizer = outer(weights.values(), lr=self.outer_lr)
        for _ in range(self.steps):
            loss = self._episode(weights, x, y) if self.how == "episode" else self._pairs(weights, x, y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return {name: w.detach() for name, w in weights.items()}

    def _episode(self, weights: Weights, x: Tensor, y: Tensor) -> Tensor:
        """The loss on pairs that the inner step has not seen, with a scale and an offset of this episode."""
        drawn = torch.randperm(len(x), generator=self._torch)
        few = min(_SUPPORT, len(x) // 2)
        support, query = drawn[:few], drawn[few : few + _QUERY]
        scale, offset = torch.randn(2, generator=self._torch)
        y = y * (0.5 * scale).exp() + offset
        return self._loss(self._descended(weights, x[support], y[support], _INNER), x[query], y[query])

    def _pairs(self, weights: Weights, x: Tensor, y: Tensor) -> Tensor:
        """The sum over pairs, each its own task and its own test, as printed."""
        drawn = torch.randint(len(x), (_BATCH,), generator=self._torch)

        def one(x: Tensor, y: Tensor) -> Tensor:
            return self._loss(self._descended(weights, x[None], y[None], _INNER), x[None], y[None])

        total: Tensor = vmap(one)(x[drawn], y[drawn]).sum()
        return total

    def _descended(self, weights: Weights, x: Tensor, y: Tensor, steps: int) -> Weights:
        """Eq. 5.4, `steps` times; can be differentiated through."""
        for _ in range(steps):
            slope = grad(self._loss)(weights, x, y)
            weights = {name: w - self.inner_lr * slope[name] for name, w in weights.items()}
        return weights

    def _trained(self, weights: Weights, x: Tensor, y: Tensor) -> Weights:
        """Plain training by Adam."""
        weights = {name: w.detach().clone().requires_grad_() for name, w in weights.items()}
        optimiser = torch.optim.Adam(weights.values(), lr=self.outer_lr)
        for _ in range(self.steps):
            drawn = torch.randperm(len(x), generator=self._torch)[:_BATCH]
            loss = self._loss(weights, x[drawn], y[drawn])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return {name: w.detach() for name, w in weights.items()}

    # ------------------------------------------------------------------ pieces

    def _fresh(self) -> nn.Module:
        inputs = self.space.feature_map.shape[1]
        network = nn.Sequential(nn.Linear(inputs, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
        for layer in network:
            if isinstance(layer, nn.Linear):
                for parameter in layer.parameters():
                    nn.init.uniform_(
                        parameter, -(layer.in_features**-0.5), layer.in_features**-0.5, generator=self._torch
                    )
        return network

    def _loss(self, weights: Weights, x: Tensor, y: Tensor) -> Tensor:
        return mse_loss(self._forward(weights, x), y)

    def _forward(self, weights: Weights, x: Tensor) -> Tensor:
        out: Any = functional_call(self.network, weights, (x,))
        value: Tensor = out[:, 0]
        return value

    def _said(self, x: Tensor) -> F:
        with torch.no_grad():
            return self._forward({name: w.double() for name, w in self.weights.items()}, x.double()).numpy()

    def _standard(self, archs: Sequence[Sequence[int]], values: F) -> tuple[Tensor, Tensor, float, float]:
        """Encodings, accuracies of mean 0 and deviation 1, and what they were."""
        values = np.asarray(values, dtype=np.float64)
        whole = np.isfinite(values)
        if whole.sum() < 2:
            raise UserError(f"{int(whole.sum())} of {len(values)} accuracies are numbers; two are needed at least.")
        known = self.space.canonicals([arch for arch, ok in zip(archs, whole) if ok])
        mean, spread = float(values[whole].mean()), float(values[whole].std()) or 1.0
        x = torch.tensor(self.space.encode(known, self.space.feature_map), dtype=torch.float32)
        return x, torch.tensor((values[whole] - mean) / spread, dtype=torch.float32), mean, spread
