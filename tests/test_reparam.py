"""Merging of layers: exact everywhere where it claims to be, and known not to be where it is not."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sartor.core import UserError
from sartor.layers.affine import Affine
from sartor.reparam.border import BORDERS, border_error, collapsed, converted, merged
from sartor.reparam.merge import in_row, kernel_of, side_by_side

EXACT = 1e-10


def random(layers: Sequence[nn.Module], seed: int = 0) -> list[nn.Module]:
    """The layers in double precision, weights and statistics drawn."""
    generator = torch.Generator().manual_seed(seed)
    for layer in layers:
        layer.double().eval()
        for name, tensor in (*layer.named_parameters(), *layer.named_buffers()):
            if tensor.is_floating_point():
                drawn = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
                tensor.data.copy_(drawn.abs() + 0.5 if name.endswith("var") else drawn)
    return list(layers)


def image(channels: int, size: int = 11, batch: int = 2, seed: int = 1) -> Tensor:
    return torch.randn(batch, channels, size, size + 2, generator=torch.Generator().manual_seed(seed)).double()


def apart(one: nn.Module, layers: Sequence[nn.Module], x: Tensor) -> float:
    """Relative to the largest output."""
    right = nn.Sequential(*layers)(x)
    got = one(x)
    assert got.shape == right.shape
    return float((got - right).detach().abs().max() / right.detach().abs().max())


@st.composite
def convs(draw: st.DrawFn, inputs: int, padded: bool = True) -> nn.Conv2d:
    kernel, groups = draw(st.sampled_from([1, 3, 5])), draw(st.sampled_from([1, 2, inputs]))
    return nn.Conv2d(
        inputs,
        draw(st.sampled_from([1, 2])) * inputs,
        kernel,
        stride=draw(st.sampled_from([1, 2])),
        padding=draw(st.integers(0, kernel // 2)) if padded else 0,
        dilation=draw(st.sampled_from([1, 2])) if kernel == 3 else 1,
        groups=groups,
        bias=draw(st.booleans()),
    )


@given(st.data(), st.booleans(), st.integers(0, 100))
@settings(max_examples=150, deadline=None)
def test_layers_in_a_row_are_one_when_padding_comes_first(
    data: st.DataObject, starts_with_norm: bool, seed: int
) -> None:
    first = data.draw(convs(4))
    second = data.draw(convs(first.out_channels))
    norm = [nn.BatchNorm2d(4)] if starts_with_norm else []
    row = [*norm, first, nn.BatchNorm2d(first.out_channels), Affine(first.out_channels), nn.Dropout(), second]
    layers = converted(random(row, seed), "pad-first")
    x = image(4, 23)
    one = collapsed(layers, "pad-first")
    assert isinstance(one, nn.Conv2d)
    assert apart(one, layers, x) < EXACT
    assert apart(copy.deepcopy(one).float(), [layer.float() for layer in layers], x.float()) < 1e-4


def test_every_combination_of_two_is_one() -> None:
    """Kernels 1, 3, 5; strides 1, 2; no padding, or what keeps the size; groups 1, 2, depthwise; bias or none."""
    layer = list(itertools.product((1, 3, 5), (1, 2), (False, True), (1, 2, 4), (False, True)))
    x, worst = image(4, 15, batch=1), 0.0
    for one, other in itertools.product(layer, layer):
        row = [
            nn.Conv2d(4, 4, kernel, stride, kernel // 2 if padded else 0, groups=groups, bias=bias, dtype=x.dtype)
            for kernel, stride, padded, groups, bias in (one, other)
        ]
        if (15 - 4) // one[1] + 1 >= 5:  # the second kernel fits what is left
            layers = converted(row, "pad-first")
            worst = max(worst, apart(collapsed(layers, "pad-first"), layers, x))
    assert worst < EXACT


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_three_in_a_row_in_any_order_of_merging(data: st.DataObject) -> None:
    first = data.draw(convs(2))
    second = data.draw(convs(first.out_channels, padded=False))
    third = data.draw(convs(second.out_channels, padded=False))
    a, b, c = (kernel_of(layer) for layer in random([first, second, third]))
    one, other = in_row(in_row(a, b), c), in_row(a, in_row(b, c))
    assert (one.stride, one.padding, one.groups) == (other.stride, other.padding, other.groups)
    torch.testing.assert_close(one.weight, other.weight)
    torch.testing.assert_close(one.bias, other.bias)


@pytest.mark.parametrize("kernels", [(1, 1), (1, 3), (3, 1), (3, 3), (5, 3), (1, 5)])
@pytest.mark.parametrize("strides", [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_sizes_are_those_of_the_network_before(kernels: tuple[int, int], strides: tuple[int, int]) -> None:
    row = [
        nn.Conv2d(3, 4, kernels[0], strides[0], kernels[0] // 2),
        nn.Conv2d(4, 2, kernels[1], strides[1], kernels[1] // 2),
    ]
    for size in (8, 9, 31, 32):
        x = torch.zeros(1, 3, size, size)
        before = nn.Sequential(*row)(x).shape
        assert collapsed(converted(copy.deepcopy(row), "pad-first"), "pad-first")(x).shape == before


def bottleneck(stride: int = 1) -> list[nn.Module]:
    """1x1, depthwise 3x3 that pads, 1x1, a batch norm after each."""
    return [
        nn.Conv2d(4, 12, 1, bias=False),
        nn.BatchNorm2d(12),
        nn.Conv2d(12, 12, 3, stride, 1, groups=12, bias=False),
        nn.BatchNorm2d(12),
        nn.Conv2d(12, 6, 1, bias=False),
        nn.BatchNorm2d(6),
    ]


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("stride", [1, 2])
def test_what_each_way_promises_at_the_border(border, stride) -> None:
    before = random(bottleneck(stride))
    layers = converted(copy.deepcopy(before), border)
    x = image(4)
    one = collapsed(layers, border, size=x.shape[2:])
    error = apart(one, layers, x)
    if border == "ignore":
        at_border, inside = border_error(layers, x)
        assert error == pytest.approx(at_border)
        assert at_border > 0.1
        assert inside < EXACT
    else:
        assert error < EXACT
    same = torch.equal(nn.Sequential(*layers)(x), nn.Sequential(*before)(x))
    assert same == (border in ("bias-map", "ignore"))  # the others have changed the network


def test_the_border_agrees_where_nothing_is_outside() -> None:
    row = random([nn.Conv2d(3, 4, 1, bias=False), nn.Conv2d(4, 2, 3, padding=1)])
    assert max(border_error(row, image(3))) < EXACT
    wide = random([nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.Conv2d(4, 2, 3, padding=1, bias=False)])
    at_border, inside = border_error(wide, image(3))
    assert inside < EXACT < at_border


@pytest.mark.parametrize("border", ["bias-pad", "bias-map"])
def test_only_pointwise_layers_leave_a_constant_behind(border) -> None:
    with pytest.raises(UserError, match="pad-first"):
        converted([nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 3, padding=1)], border)


def test_bias_padding_follows_running_statistics() -> None:
    layers = converted(random(bottleneck()), "bias-pad")
    chain, x = nn.Sequential(*layers), image(4)
    chain.train()(x)
    chain.eval()
    assert apart(collapsed(layers, "bias-pad"), layers, x) < EXACT
    again = copy.deepcopy(chain)
    again[0].weight.data.mul_(2)
    assert apart(collapsed(list(again), "bias-pad"), list(again), x) < EXACT  # a copy pads by its own layers


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (nn.Conv2d(4, 6, 3, 2, 1), nn.Conv2d(4, 6, 1, 2)),  # projection of a ResNet v1.5
        (nn.Conv2d(4, 6, 1), nn.Conv2d(4, 6, 5, padding=2)),
        (nn.Conv2d(4, 6, (1, 3), padding=(0, 1)), nn.Conv2d(4, 6, (3, 1), padding=(1, 0))),
        (nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.Conv2d(4, 4, 3, padding=1, groups=2)),
    ],
)
def test_layers_side_by_side_are_one(one, other) -> None:
    random([one, other])
    x = image(4)
    both = side_by_side(kernel_of(one), kernel_of(other)).conv(x)
    assert float((both(x) - one(x) - other(x)).detach().abs().max()) < EXACT * 100


def test_what_looks_elsewhere_is_refused() -> None:
    for other in (nn.Conv2d(4, 6, 1), nn.Conv2d(4, 6, 1, 2, 1), nn.Conv2d(4, 6, 2, 2, 1)):
        with pytest.raises(UserError, match="same pixels"):
            side_by_side(kernel_of(nn.Conv2d(4, 6, 3, 2, 1)), kernel_of(other))


def test_depthwise_layers_stay_depthwise() -> None:
    row = random([nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.Conv2d(8, 16, 3, groups=8)])
    one = collapsed(converted(row, "pad-first"), "pad-first")
    assert isinstance(one, nn.Conv2d)
    assert one.groups == 8


def test_words_in_place_of_numbers_pad_as_much() -> None:
    same = random([nn.Conv2d(3, 4, 3, padding="same", dilation=2)])
    assert apart(merged(same).conv(image(3)), same, image(3)) < EXACT
    assert kernel_of(nn.Conv2d(3, 4, 3, padding="valid")).padding == (0, 0)


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ([nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")], "as many zeros"),
        ([nn.Conv2d(3, 4, 2, padding="same")], "as many zeros"),
        ([nn.Conv2d(3, 4, 1), nn.ReLU()], "ReLU cannot be merged"),
        ([nn.BatchNorm2d(3, track_running_stats=False)], "running statistics"),
        ([nn.Identity()], "nothing to merge"),
    ],
)
def test_what_cannot_be_merged(layers, says) -> None:
    with pytest.raises(UserError, match=says):
        merged(layers)


def test_numbers_of_a_merged_bottleneck() -> None:
    """Multiply-accumulates per pixel: 12 c^2 + 54 c of an inverted residual block become 9 c^2."""
    c = 16
    row = [nn.Conv2d(c, 6 * c, 1), nn.Conv2d(6 * c, 6 * c, 3, padding=1, groups=6 * c), nn.Conv2d(6 * c, c, 1)]
    assert sum(np.prod(layer.weight.shape) for layer in row) == 12 * c**2 + 54 * c
    one = collapsed(converted(row, "pad-first"), "pad-first")
    assert isinstance(one, nn.Conv2d)
    assert one.weight.numel() == 9 * c**2
