"""Attention on feature maps as in NASViT (C. Gong et al., ICLR 2022), written from its description (ALGORITHMS 7.3)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

HEAD = 8  # channels of queries and keys a head
WIDER = 4  # how many times as wide as queries the values are
START = 1e-4  # of the scales of residual branches


class AttentionLayer(nn.Module):
    """Perceptron, attention, perceptron on (B, C, H, W), each a residual branch behind a norm; shape stays.

    widths: the C it is made for, multiples of 8; narrower inputs use the first channels, and have scales of their
    branches of their own. size: the largest edge of a map, which the table of relative positions is for. Values are
    four times as wide as queries and pass a 3x3 depthwise convolution; heads are mixed before and after the softmax;
    norms are over channels and pixels together. Where the order of the branches is not published, it is this one.
    """

    def __init__(self, widths: Sequence[int], size: int) -> None:
        super().__init__()
        width, self.size = max(widths), size
        heads = width // HEAD
        self.norms = nn.ModuleList(nn.GroupNorm(1, width) for _ in range(3))
        self.query, self.key = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1)
        self.value = nn.Conv2d(width, WIDER * width, 1)
        self.local = nn.Conv2d(WIDER * width, WIDER * width, 3, padding=1, groups=WIDER * width)
        self.position = nn.Parameter(torch.zeros(heads, size, size))
        self.before, self.after = (nn.Parameter(torch.eye(heads)) for _ in range(2))
        self.out = nn.Conv2d(WIDER * width, width, 1)
        self.first = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(2))
        self.last = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(2))
        self.scales = nn.ParameterDict({str(w): nn.Parameter(torch.full((3, w, 1, 1), START)) for w in widths})

    def forward(self, x: Tensor) -> Tensor:
        scales = self.scales[str(x.shape[1])]
        x = x + scales[0] * self._perceptron(self._norm(0, x), self.first)
        x = x + scales[1] * self._attend(self._norm(1, x))
        out: Tensor = x + scales[2] * self._perceptron(self._norm(2, x), self.last)
        return out

    def _norm(self, i: int, x: Tensor) -> Tensor:
        norm, c = self.norms[i], x.shape[1]
        return functional.group_norm(x, 1, norm.weight[:c], norm.bias[:c], norm.eps)  # type: ignore[index, arg-type]

    @staticmethod
    def _perceptron(x: Tensor, layers: nn.ModuleList) -> Tensor:
        first, second = layers
        return _narrow(second, functional.hardswish(_narrow(first, x, x.shape[1])), x.shape[1])

    def _attend(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        heads = c // HEAD
        q, k = (_narrow(m, x, c).reshape(b, heads, HEAD, h * w) for m in (self.query, self.key))
        v = _narrow(self.value, x, WIDER * c)
        v = v + _narrow(self.local, v, WIDER * c)
        weight = torch.einsum("bhdi,bhdj->bhij", q, k) / math.sqrt(HEAD) + self._positions(heads, h, w)
        weight = torch.einsum("bhij,gh->bgij", weight, self.before[:heads, :heads]).softmax(dim=-1)
        weight = torch.einsum("bhij,gh->bgij", weight, self.after[:heads, :heads])
        mixed = torch.einsum("bhij,bhdj->bhdi", weight, v.reshape(b, heads, -1, h * w))
        return _narrow(self.out, functional.hardswish(mixed.reshape(b, WIDER * c, h, w)), c)

    def _positions(self, heads: int, h: int, w: int) -> Tensor:
        """(heads, pixels, pixels): by how far two pixels are apart, down and across."""
        y, x = torch.arange(h, device=self.position.device), torch.arange(w, device=self.position.device)
        down = (y[:, None] - y).abs()[:, None, :, None].expand(h, w, h, w)
        across = (x[:, None] - x).abs()[None, :, None, :].expand(h, w, h, w)
        return self.position[:heads, down, across].reshape(heads, h * w, h * w)

    @torch.no_grad()
    def plain(self, width: int) -> AttentionLayer:
        """The layer of one width, with a copy of its weights."""
        alone = AttentionLayer([width], self.size).to(self.position.device)
        mine = self.state_dict()
        for name, value in alone.state_dict().items():
            value.copy_(mine[name][tuple(slice(n) for n in value.shape)])
        return alone


def _narrow(layer: nn.Module, x: Tensor, outputs: int) -> Tensor:
    """A convolution on the first channels, to the first `outputs`."""
    assert isinstance(layer, nn.Conv2d)
    assert layer.bias is not None
    if layer.groups > 1:
        return functional.conv2d(x, layer.weight[:outputs], layer.bias[:outputs], 1, layer.padding, 1, outputs)
    return functional.conv2d(x, layer.weight[:outputs, : x.shape[1]], layer.bias[:outputs])
