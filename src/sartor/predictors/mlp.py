"""The LightNAS latency predictor: a small network on the one-hot architecture (thesis ch. 4, section 4.3).

As published (`MLP.paper()`): one-hot -> 128 -> 64 -> 1 with ReLU, an 80/20 split, output in the metric's unit.
Optimiser and schedule are not published; Adam 1e-3 with cosine decay, batch 64, 200 epochs, standardised target.
Our default differs where it was measured to help: the network learns what additive ridge leaves over, from zero, for
as many epochs as lower the error on the held-out fifth, and is then trained that long on everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from sartor.core import F, Json, UserError
from sartor.predictors.base import Predictor, soft_row
from sartor.predictors.ridge import ridge

if TYPE_CHECKING:
    from torch import Tensor

Index: TypeAlias = npt.NDArray[np.int64]


class MLP(Predictor):
    """A multi-layer perceptron on the candidates' features (the one-hot where a slot gives none).

    hidden: widths; epochs, batch, lr (Adam, cosine to 0), weight_decay (decoupled): training; validation: share
    held out; early_stopping: take the number of epochs with the least error on it; residual: learn what ridge leaves
    over, starting from zero; seed: of initial weights, split and order.
    """

    key = "mlp"

    def __init__(
        self,
        hidden: Sequence[int] = (128, 64),
        epochs: int = 200,
        batch: int = 64,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        validation: float = 0.2,
        early_stopping: bool = True,
        residual: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if min([*hidden, epochs, batch]) < 1 or lr <= 0 or weight_decay < 0 or not 0 <= validation < 1:
            raise UserError(
                "mlp needs hidden, epochs and batch of 1 or more, lr above 0, weight_decay of 0 or more and validation "
                f"in [0, 1); given {list(hidden)}, {epochs}, {batch}, {lr}, {weight_decay}, {validation}."
            )
        self.hidden, self.epochs, self.batch, self.lr = list(hidden), epochs, batch, lr
        self.weight_decay, self.validation, self.early_stopping = weight_decay, validation, early_stopping
        self.residual, self.seed = residual, seed

    @classmethod
    def paper(cls, seed: int = 0) -> Self:
        """As published."""
        return cls(early_stopping=False, residual=False, seed=seed)

    def _fit(self, archs: Sequence[Sequence[int]], values: F) -> dict[str, Json]:
        scale = np.abs(self.space.feature_map).max(axis=0, initial=0.0)
        self._scale: F = 1.0 / np.where(scale > 0, scale, 1.0)
        self._encode: F = self.space.feature_map * self._scale
        features = self.space.encode(archs, self.space.feature_map)
        order = np.random.default_rng([self.seed, 0]).permutation(len(archs))
        held = order[: int(self.validation * len(archs))]
        train = order[len(held) :]
        epochs = self._learn(features, values, train, held, self.epochs)
        if not len(held):
            return {"epochs": epochs}
        error = self._predict([archs[i] for i in held]) - values[held]
        if self.early_stopping:
            self._learn(features, values, order, order[:0], epochs)
        return {"epochs": epochs, "rmse_validation": float(np.sqrt(np.mean(error**2)))}

    def _learn(self, features: F, values: F, train: Index, held: Index, stop: int) -> int:
        """Learn from the rows `train`; returns the number of epochs, with early stopping the best on `held`."""
        self._const, weights = 0.0, np.zeros(features.shape[1])
        if self.residual:
            self._const, weights, _, _ = ridge(features[train], values[train])
        self._columns = self.space.feature_map @ weights
        rest = values - self._const - features @ weights
        self._layers, epochs = self._train(features * self._scale, rest, train, held, stop)
        return epochs

    def _train(self, inputs: F, targets: F, train: Index, held: Index, stop: int) -> tuple[list[tuple[F, F]], int]:
        """Weights (out, in) and biases (out,) of each layer, the target's scale folded into the last; epochs."""
        import torch
        from torch import nn

        from sartor.predictors.descent import descend

        generator = torch.Generator().manual_seed(self.seed)
        centre, spread = float(targets[train].mean()), float(targets[train].std()) or 1.0
        x = torch.tensor(inputs, dtype=torch.float32)
        y = torch.tensor((targets - centre) / spread, dtype=torch.float32)
        layers: list[nn.Linear] = []
        for fan_in, fan_out in zip([x.shape[1], *self.hidden], [*self.hidden, 1]):
            layer = nn.Linear(fan_in, fan_out)
            bound = max(fan_in, 1) ** -0.5 if fan_out > 1 or not self.residual else 0.0
            for parameter in layer.parameters():
                nn.init.uniform_(parameter, -bound, bound, generator=generator)
            layers.append(layer)
        network = nn.Sequential(*(m for layer in layers for m in (layer, nn.ReLU())))[:-1]
        watched = (x[held.tolist()], y[held.tolist()]) if self.early_stopping and len(held) else None
        epochs = descend(
            network,
            x[train.tolist()],
            y[train.tolist()],
            watched,
            epochs=self.epochs,
            stop=stop,
            batch=self.batch,
            lr=self.lr,
            weight_decay=self.weight_decay,
            generator=generator,
        )
        out = [(la.weight.detach().double().numpy(), la.bias.detach().double().numpy()) for la in layers]
        weight, bias = out[-1]
        return [*out[:-1], (weight * spread, bias * spread + centre)], epochs

    def _predict(self, archs: Sequence[Sequence[int]]) -> F:
        x = self.space.encode(archs, self._encode)
        for weight, bias in self._layers[:-1]:
            x = np.maximum(x @ weight.T + bias, 0.0)
        weight, bias = self._layers[-1]
        return np.asarray(
            (x @ weight.T + bias)[:, 0] + self._const + self.space.encode(archs, self._columns), dtype=np.float64
        )

    def soft(self, gates: tuple[Tensor, ...]) -> Tensor:
        import torch

        self._fitted()
        row = soft_row(self.space, gates)
        x = row @ row.new_tensor(self._encode)
        for weight, bias in self._layers[:-1]:
            x = torch.relu(row.new_tensor(weight) @ x + row.new_tensor(bias))
        weight, bias = self._layers[-1]
        out: Tensor = (row.new_tensor(weight) @ x + row.new_tensor(bias))[0]
        return out + self._const + row @ row.new_tensor(self._columns)

    def _arrays(self) -> dict[str, F]:
        out = {"const": np.array([self._const]), "columns": self._columns, "encode": self._encode}
        for i, (weight, bias) in enumerate(self._layers):
            out |= {f"weight.{i}": weight, f"bias.{i}": bias}
        return out

    def _restore(self, arrays: dict[str, F]) -> None:
        self._const, self._columns = float(arrays["const"][0]), arrays["columns"]
        self._encode = arrays["encode"]
        self._layers = [(arrays[f"weight.{i}"], arrays[f"bias.{i}"]) for i in range(len(self.hidden) + 1)]
