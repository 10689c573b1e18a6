"""A linear activation: a factor and a shift a channel."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Affine(nn.Module):
    """y = scale * x + shift per channel of (batch, channels, height, width); begins as y = x."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale[:, None, None] + self.shift[:, None, None]
