"""The SuperViT space: sizes, counts that are sums over neighbours, weight sharing of widths."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sartor import spaces
from sartor.choose.exact import maximise
from sartor.core import UserError
from sartor.layers.attention import AttentionLayer
from sartor.quality.blocks import base_network
from sartor.spaces.complexity import Complexity, count_part
from sartor.spaces.supervit import SuperViT
from tests.contracts.scores import check_score
from tests.contracts.spaces import check_space

SMALL = "supervit:cifar?width=0.35&resolution=8"


def space_of(reference: str = SMALL) -> SuperViT:
    space = spaces.get(reference)
    assert isinstance(space, SuperViT)
    return space


def test_the_space_keeps_the_contract() -> None:
    check_space(space_of(), samples=2)


def test_sizes_are_those_of_the_published_code_and_table() -> None:
    space = space_of("supervit")
    assert [len(slot) for slot in space.slots] == [2, 8, 36, 24, 24, 63, 24, 12, 2]
    assert space.size == 12_039_487_488
    assert space_of("supervit?variant=table").size == 36_691_771_392


def test_macs_are_a_sum_over_neighbours() -> None:
    space = space_of()
    window = space.restrict({i: range(min(3, len(s))) for i, s in enumerate(space.slots)})
    macs = Complexity(window)
    check_score(macs, window)
    terms = macs.terms()
    assert terms is not None
    assert set(terms.pair) == {(i, i + 1) for i in range(8)}
    for arch in window.sample(np.random.default_rng(0), 10):
        counted = sum(count_part(part)["macs"] for part in window.parts(arch) or [])
        assert macs([arch])[0] == pytest.approx(counted)
    assert maximise(window, terms.times(-1.0)).architecture == (0,) * 9
    assert macs([base_network(window, terms)])[0] == pytest.approx(maximise(window, terms).value)


def test_attention_sees_all_pixels_and_starts_as_nearly_nothing() -> None:
    torch.manual_seed(0)
    layer = AttentionLayer([16, 24], 4).eval()
    x = torch.randn(1, 16, 4, 4, requires_grad=True)
    torch.testing.assert_close(layer(x), x, rtol=0, atol=0.01)
    (layer(x) - x)[0, :, 0, 0].sum().backward()
    assert x.grad is not None
    assert (x.grad[0].abs().sum(dim=0) > 0).all()
    assert layer(torch.randn(2, 24, 3, 4)).shape == (2, 24, 3, 4)


def test_attention_knows_how_far_pixels_are_apart() -> None:
    layer = AttentionLayer([8], 3)
    with torch.no_grad():
        layer.position.copy_(torch.arange(9.0).reshape(1, 3, 3))  # 3 down + across
    between = layer._positions(1, 2, 3)[0]
    assert between.shape == (6, 6)
    assert between[0].tolist() == [0, 1, 2, 3, 4, 5]
    assert torch.equal(between, between.T)


@pytest.mark.parametrize(
    "wrong", ["supervit:large", "supervit?variant=print", "supervit?width=0", "supervit?classes=1"]
)
def test_options_out_of_range_are_one_line(wrong: str) -> None:
    with pytest.raises(UserError) as error:
        spaces.get(wrong)
    assert "\n" not in str(error.value)
