"""A 1x1 convolution with a stride: the values and gradients of `nn.Conv2d`, also of few channels."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from sartor.layers.pointwise import PointwiseConv2d


@pytest.mark.parametrize(("inputs", "outputs", "pixels"), [(5, 6, 12), (3, 8, 7), (16, 24, 9), (7, 1, 2)])
def test_values_and_gradients(inputs: int, outputs: int, pixels: int) -> None:
    torch.manual_seed(0)
    layer = PointwiseConv2d(inputs, outputs, 2).to(memory_format=torch.channels_last)
    x = torch.randn(8, inputs, pixels, pixels).to(memory_format=torch.channels_last).requires_grad_()
    slope = torch.randn(8, outputs, -(-pixels // 2), -(-pixels // 2))
    for _ in range(20):  # oneDNN's own gradient died within a few
        layer.weight.grad = x.grad = None
        layer(x).backward(slope)
    exact = [t.detach().double().requires_grad_() for t in (x, layer.weight)]
    functional.conv2d(*exact, None, 2).backward(slope.double())
    for mine, other in zip((x.grad, layer.weight.grad), exact):
        torch.testing.assert_close(mine, other.grad.float())  # type: ignore[union-attr]
    torch.testing.assert_close(layer(x), layer.eval()(x))
