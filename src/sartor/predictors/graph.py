"""Graph networks on a fixed graph, for predictors."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from sartor.core import F


class Layer(nn.Module):
    """Mean over directions d of H_d * ReLU(M_d V W_d); operators (n, slots, features) are what H looks at.

    mixes: (directions, slots, slots).
    """

    def __init__(self, mixes: Tensor, inputs: int, outputs: int, features: int, attention: bool) -> None:
        super().__init__()
        self.register_buffer("mixes", mixes, persistent=False)
        self.ways = nn.ModuleList(nn.Linear(inputs, outputs, bias=False) for _ in mixes)
        self.gates = nn.ModuleList(nn.Linear(features, 1) for _ in mixes) if attention else None

    def forward(self, nodes: Tensor, operators: Tensor) -> Tensor:
        mixes: Tensor = self.mixes  # type: ignore[assignment]
        out = torch.zeros(())
        for d, way in enumerate(self.ways):
            one = torch.relu(mixes[d] @ way(nodes))
            out = out + (one if self.gates is None else torch.sigmoid(self.gates[d](operators)) * one)
        return out / len(self.ways)


class Graph(nn.Module):
    """(n, slots, features) to (n, 1): graph layers, nodes flattened or averaged, a head.

    mixes: (slots, slots) for each direction; head: hidden widths.
    """

    def __init__(
        self,
        mixes: Sequence[F],
        features: int,
        *,
        width: int,
        layers: int,
        head: Sequence[int],
        attention: bool,
        flatten: bool,
    ) -> None:
        super().__init__()
        stacked = torch.stack([torch.tensor(mix, dtype=torch.float32) for mix in mixes])
        sizes = [features] + [width] * layers
        self.layers = nn.ModuleList(Layer(stacked, a, b, features, attention) for a, b in pairwise(sizes))
        self.flatten = flatten
        *hidden, last = pairwise([width * (len(mixes[0]) if flatten else 1), *head, 1])
        self.head = nn.Sequential(*(m for a, b in hidden for m in (nn.Linear(a, b), nn.ReLU())))
        self.last = nn.Linear(*last)

    def forward(self, operators: Tensor) -> Tensor:
        nodes = operators
        for layer in self.layers:
            nodes = layer(nodes, operators)
        out: Tensor = self.last(self.head(nodes.flatten(1) if self.flatten else nodes.mean(dim=1)))
        return out

    @torch.no_grad()
    def initialise(self, generator: torch.Generator, *, zero: bool) -> None:
        """PyTorch's own distribution, drawn from `generator`; zero: the output begins as 0."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                bound = 0.0 if zero and module is self.last else max(module.in_features, 1) ** -0.5
                for parameter in module.parameters():
                    parameter.uniform_(-bound, bound, generator=generator)

    @torch.no_grad()
    def finish(self, centre: float, spread: float) -> None:
        """Fold the target's scale into the last layer; in double precision, batches and single rows agree."""
        self.double().requires_grad_(False)
        self.last.weight.mul_(spread)
        self.last.bias.mul_(spread).add_(centre)
