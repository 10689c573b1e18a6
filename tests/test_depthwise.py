"""The depthwise convolution gives what torch's own gives, with the same gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sartor.layers.depthwise import DepthwiseConv2d

SHAPES = {
    "channels": st.integers(1, 5),
    "kernel": st.sampled_from([1, 3, 5, 7]),
    "stride": st.integers(1, 2),
    "height": st.integers(1, 11),
    "width": st.integers(1, 11),
    "images": st.integers(1, 4),
    "last": st.booleans(),
}


@settings(max_examples=60, deadline=None)
@given(**SHAPES)
def test_values_and_gradients_are_those_of_torch(
    channels: int, kernel: int, stride: int, height: int, width: int, images: int, last: bool
) -> None:
    torch.manual_seed(0)
    own = DepthwiseConv2d(channels, kernel, stride)
    other = nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False)
    other.load_state_dict(own.state_dict())
    layout = torch.channels_last if last else torch.contiguous_format
    x = torch.randn(images, channels, height, width).to(memory_format=layout)
    found = []
    for conv in (own, other):
        given_x = x.clone().requires_grad_()
        y = conv(given_x)
        (y * torch.linspace(-1, 1, y.numel()).reshape(y.shape)).sum().backward()
        assert conv.weight.grad is not None
        found.append((y, given_x.grad, conv.weight.grad))
    for ours, theirs in zip(*found):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_is_differentiable_twice() -> None:
    conv = DepthwiseConv2d(2, 5)
    x = torch.randn(3, 2, 3, 3, requires_grad=True)
    (slope,) = torch.autograd.grad(conv(x).square().sum(), conv.weight, create_graph=True)
    (second,) = torch.autograd.grad(slope.square().sum(), x)
    plain = nn.Conv2d(2, 2, 5, padding=2, groups=2, bias=False)
    plain.load_state_dict(conv.state_dict())
    (slope,) = torch.autograd.grad(plain(x).square().sum(), plain.weight, create_graph=True)
    (expected,) = torch.autograd.grad(slope.square().sum(), x)
    torch.testing.assert_close(second, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_are_left_to_torch(dtype: torch.dtype) -> None:
    conv = DepthwiseConv2d(2, 5).to(dtype)
    conv(torch.randn(1, 2, 3, 3, dtype=dtype)).sum().backward()
    assert conv.weight.grad is not None
    assert conv.weight.grad.dtype == dtype


def test_under_autocast_is_left_to_torch() -> None:
    conv = DepthwiseConv2d(2, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        conv(torch.randn(1, 2, 3, 3)).sum().backward()
    assert conv.weight.grad is not None
    assert conv.weight.grad.dtype == torch.float32
