"""Spaces of channel scales: the network as it was, what its neighbours do, shortcuts, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sartor import spaces
from sartor.core import UserError
from sartor.layers.mbconv import MBConv
from sartor.spaces.channels import Channels
from sartor.spaces.complexity import Complexity
from sartor.spaces.mobilenet import OPERATORS
from tests.contracts.spaces import check_space

TINY = spaces.get("mobilenet:tiny")
SKIP = OPERATORS.index("skip")
ARCH = (0, 1, SKIP, 2, 3, SKIP, 4, 5, 0)


@pytest.mark.parametrize("mode", ["output", "hidden"])
def test_channel_spaces_keep_the_contract(mode) -> None:
    check_space(Channels(TINY, ARCH, mode))


@pytest.mark.parametrize("mode", ["output", "hidden"])
def test_unscaled_it_is_the_same_network(mode) -> None:
    space = Channels(TINY, ARCH, mode)
    assert space.key(space.unscaled) == TINY.key(ARCH)
    torch.manual_seed(0)
    one = space.network(space.unscaled).eval()
    torch.manual_seed(0)
    other = TINY.network(ARCH).eval()
    x = space.inputs(2)[0]
    torch.testing.assert_close(one(x), other(x))


def test_as_many_networks_as_published_less_those_that_rounding_makes_one() -> None:
    of = spaces.get("mobilenet:lightnas")
    assert Channels(of, (1,) * 21, "hidden").size == 7**21
    assert Channels(of, (SKIP,) * 21).size == 7**19 * 5**2


@pytest.mark.parametrize("mode", ["output", "hidden"])
def test_each_candidate_is_another_width(mode) -> None:
    space = Channels(TINY, ARCH, mode)
    for i, slot in enumerate(space.slots):
        keys = {space.key([k if j == i else s for j, s in enumerate(space.unscaled)]) for k in range(len(slot))}
        assert len(keys) == len(slot) >= 2


def blocks(space: Channels, arch: tuple[int, ...]) -> list[nn.Module]:
    return list(space.network(arch))[2:-1]


def test_outputs_feed_the_next_layer_in_multiples_of_eight() -> None:
    space, rng = Channels(TINY, ARCH), np.random.default_rng(0)
    for arch in space.sample(rng, 10):
        x = space.inputs(2)[0]
        network = space.network(arch).eval()
        wide = []
        for module in network:
            x = module(x)
            wide.append(x.shape[1])
        outputs = wide[2:-1]
        assert all(c % 8 == 0 for c in outputs)
        for (_, published, _, _), c, k, slot in zip(TINY.rows, outputs, arch, space.slots):
            scale = float(slot.candidates[k][1:])
            assert 0.9 * published * scale <= c < published * scale + 8


def test_shortcuts_are_where_sides_have_become_equal() -> None:
    space = Channels(TINY, ARCH)
    same, half = space.unscaled, (0,) * 9
    plain = blocks(space, same)
    assert isinstance(plain[1], MBConv)
    assert plain[1].shortcut
    assert isinstance(plain[2], nn.Identity)
    narrow = blocks(space, (same[0], half[1], *same[2:]))
    assert not narrow[1].shortcut
    assert not isinstance(narrow[2], nn.Identity)  # a skip whose sides differ is a convolution
    again = blocks(space, (*half[:3], *same[3:]))
    assert again[1].shortcut
    assert isinstance(again[2], nn.Identity)


def test_hidden_scales_leave_what_is_outside() -> None:
    space = Channels(TINY, ARCH, "hidden")
    assert len(space.slots) == len(ARCH) - ARCH.count(SKIP)
    small, large = (tuple(at(range(len(slot))) for slot in space.slots) for at in (min, max))
    x = space.inputs(2)[0]
    assert [m.shortcut for m in blocks(space, small) if isinstance(m, MBConv)] == [
        m.shortcut for m in blocks(space, large) if isinstance(m, MBConv)
    ]
    macs = Complexity(space, "macs")
    assert macs([small])[0] < macs([space.unscaled])[0] < macs([large])[0]
    assert space.network(large)(x).shape == space.network(small)(x).shape


@pytest.mark.parametrize("mode", ["output", "hidden"])
def test_counts_are_sums_over_layers_and_neighbours(mode) -> None:
    space = Channels(TINY, ARCH, mode)
    archs = space.sample(np.random.default_rng(1), 20)
    macs = Complexity(space, "macs")
    terms = macs.terms()
    assert terms is not None
    np.testing.assert_allclose(terms(space, archs), macs(archs))


@pytest.mark.parametrize(
    ("of", "arch", "mode", "says"),
    [
        (spaces.get("nas-bench-201"), (0,) * 6, "output", "mobilenet"),
        (TINY, ARCH, "outputs", "hidden"),
        (TINY, (SKIP,) * 9, "hidden", "mode='output'"),
    ],
)
def test_what_is_refused(of, arch, mode, says) -> None:
    with pytest.raises(UserError, match=says):
        Channels(of, arch, mode)
