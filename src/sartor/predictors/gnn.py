"""SurgeNAS's latency predictor: a directed two-way graph network with operator-dependent attention (thesis ch. 3).

Nodes are slots, M is the adjacency of `space.edges`. A layer is (Eq. 3.14, after W. Wen et al., "Neural Predictor for
Neural Architecture Search", ECCV 2020)

    V' = 1/2 [ReLU(M V W+) + ReLU(M^T V W-)],   with attention (Eq. 3.15)   1/2 [H+ * ReLU(...) + H- * ReLU(...)].

As published: Adam 1e-3 with cosine decay, batch 8, 9,000 of 10,000 samples to train on. Where the thesis is silent:
- H = sigmoid(V0 A + c), one number a node, from its operator alone; A and c of their own in each layer and direction.
- M has self-loops and rows that add up to 1; without, a node does not see its own operator in the first layer.
- Three layers of 128, nodes flattened (a slot's cost depends on where it is), head 64-64-1 with ReLU.
- The printed second term of Eq. 3.15 has M for M^T, which makes both directions one.
- The thesis draws samples by ordered sampling, balanced over candidates; `sartor fit` draws them as for all others.
- Targets are standardised; 60 epochs, the best on a held-out tenth is kept.
- What the nodes hold: the candidate's features and, where the space tells it, the operator that is executed.
Our default differs where it was measured to help, as for `mlp`: the network learns what additive ridge leaves over,
from zero, and then as long on all samples; batch 32. `GNN.paper()` is the published form.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from sartor.core import F, Json, UserError
from sartor.predictors.base import Predictor, soft_row
from sartor.predictors.descent import descend
from sartor.predictors.graph import Graph
from sartor.predictors.ridge import ridge
from sartor.predictors.views import View, soft_views, views

HEAD = (64, 64)


class GNN(Predictor):
    """A graph network over slots.

    layers, width: of the graph; epochs, batch, lr (Adam, cosine to 0): training; validation: share held out, which
    decides the number of epochs; residual: learn what ridge leaves over, starting from zero, and at last on
    everything; seed: of initial weights, split and order.
    """

    key = "gnn"
    attention: ClassVar[bool] = True
    directed: ClassVar[bool] = True
    flatten: ClassVar[bool] = True

    def __init__(
        self,
        layers: int = 3,
        width: int = 128,
        epochs: int = 60,
        batch: int = 32,
        lr: float = 1e-3,
        validation: float = 0.1,
        residual: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if min(layers, width, epochs, batch) < 1 or lr <= 0 or not 0 <= validation < 1:
            raise UserError(
                f"{self.key} needs layers, width, epochs and batch of 1 or more, lr above 0 and validation in [0, 1); "
                f"given {layers}, {width}, {epochs}, {batch}, {lr}, {validation}."
            )
        self.layers, self.width, self.epochs, self.batch, self.lr = layers, width, epochs, batch, lr
        self.validation, self.residual, self.seed = validation, residual, seed

    @classmethod
    def paper(cls, seed: int = 0) -> Self:
        """As published."""
        return cls(batch=8, residual=False, seed=seed)

    # ------------------------------------------------------------------ fitting

    def _fit(self, archs: Sequence[Sequence[int]], values: F) -> dict[str, Json]:
        features, nodes = self.space.encode(archs, self.space.feature_map), self._nodes(archs)
        order = np.random.default_rng([self.seed, 0]).permutation(len(archs)).tolist()
        held = order[: int(self.validation * len(archs))]
        epochs = self._learn(features, nodes, values, order[len(held) :], held, self.epochs)
        if not held:
            return {"epochs": epochs}
        error = self._predict([archs[i] for i in held]) - values[held]
        if self.residual:
            self._learn(features, nodes, values, order, [], epochs)
        return {"epochs": epochs, "rmse_validation": float(np.sqrt(np.mean(error**2)))}

    def _learn(self, features: F, nodes: F, values: F, train: list[int], held: list[int], stop: int) -> int:
        self._const, weights = 0.0, np.zeros(features.shape[1])
        if self.residual:
            self._const, weights, _, _ = ridge(features[train], values[train])
        self._columns = self.space.feature_map @ weights
        rest = values - self._const - features @ weights
        centre, spread = float(rest[train].mean()), float(rest[train].std()) or 1.0
        generator = torch.Generator().manual_seed(self.seed)
        self._net = self._network(nodes.shape[2])
        self._net.initialise(generator, zero=self.residual)
        x, y = torch.tensor(nodes).float(), torch.tensor((rest - centre) / spread).float()
        epochs = descend(
            self._net,
            x[train],
            y[train],
            (x[held], y[held]) if held else None,
            epochs=self.epochs,
            stop=stop,
            batch=self.batch,
            lr=self.lr,
            weight_decay=0.0,
            generator=generator,
        )
        self._net.finish(centre, spread)
        return epochs

    def _network(self, features: int) -> Graph:
        return Graph(
            self._mixes(),
            features,
            width=self.width,
            layers=self.layers,
            head=HEAD,
            attention=self.attention,
            flatten=self.flatten,
        )

    def _mixes(self) -> list[F]:
        """What each direction multiplies nodes with, (slots, slots)."""
        n = len(self.space.slots)
        forward = np.zeros((n, n))
        for i, j in self.space.edges:
            forward[i, j] = 1.0
        if self.directed:
            ways = [forward + np.eye(n), forward.T + np.eye(n)]
            return [way / way.sum(axis=1, keepdims=True) for way in ways]
        both = np.minimum(forward + forward.T, 1.0) + np.eye(n)
        size = both.sum(axis=1) ** -0.5
        return [size[:, None] * both * size]

    # ------------------------------------------------------------------ predicting

    def _nodes(self, archs: Sequence[Sequence[int]]) -> F:
        """(n, slots, features), narrower slots filled up with zeros."""
        seen = views(self.space, archs)
        widths = _widths(seen)
        out = np.zeros((len(archs), len(self.space.slots), sum(widths)))
        for view, start in zip(seen, np.cumsum([0, *widths])):
            for i, block in enumerate(view):
                out[:, i, start : start + block.shape[1]] = block
        return out

    def _predict(self, archs: Sequence[Sequence[int]]) -> F:
        rest = self._net.cpu()(torch.from_numpy(self._nodes(archs))).squeeze(1).numpy()
        return np.asarray(rest + self._const + self.space.encode(archs, self._columns), dtype=np.float64)

    def soft(self, gates: tuple[Tensor, ...]) -> Tensor:
        self._fitted()
        seen = soft_views(self.space, gates)
        nodes = torch.cat(
            [
                torch.stack([torch.nn.functional.pad(block, (0, width - len(block))) for block in view])
                for view, width in zip(seen, _widths(seen))
            ],
            dim=1,
        )
        row = soft_row(self.space, gates)
        rest: Tensor = self._net.to(nodes.device)(nodes.double()[None])[0, 0].to(row.dtype)
        return rest + self._const + row @ row.new_tensor(self._columns)

    # ------------------------------------------------------------------ saving

    def _arrays(self) -> dict[str, F]:
        state = {f"net.{name}": tensor.numpy() for name, tensor in self._net.state_dict().items()}
        return {"const": np.array([self._const]), "columns": self._columns, **state}

    def _restore(self, arrays: dict[str, F]) -> None:
        self._const, self._columns = float(arrays["const"][0]), arrays["columns"]
        state = {name[4:]: torch.from_numpy(a) for name, a in arrays.items() if name.startswith("net.")}
        self._net = self._network(self._nodes([(0,) * len(self.space.slots)]).shape[2]).double().requires_grad_(False)
        try:
            self._net.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(str(error)) from None


def _widths(seen: Sequence[View]) -> list[int]:
    return [max(block.shape[-1] for block in view) for view in seen]


class PlainGNN(GNN):
    """The two-way graph network without attention (Eq. 3.14)."""

    key = "gnn-plain"
    attention = False


class GCN(GNN):
    """A graph convolutional network as in BRP-NAS: edges without direction, nodes averaged.

    L. Dudziak et al., "BRP-NAS: Prediction-based NAS using GCNs", NeurIPS 2020: D^-1/2 (A + I) D^-1/2. It has 4 layers
    of 600 and reads out a node that is joined to all others; we keep the sizes of `gnn` and average the nodes.
    """

    key = "gcn"
    attention, directed, flatten = False, False, False
