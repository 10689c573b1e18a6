"""The spaces of SPOS and NAS-Bench-Macro: published counts, the split of channels, weight sharing."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from sartor import spaces
from sartor.core import Path, UserError
from sartor.layers.shuffle import ShuffleBlock
from sartor.spaces.complexity import Complexity
from tests.contracts.spaces import check_space
from tests.test_data_sources import SARTOR_DATA, needs_data

PUBLISHED = (2, 1, 0, 1, 2, 0, 2, 0, 2, 0, 2, 3, 0, 0, 0, 0, 3, 2, 3, 3)


@pytest.mark.parametrize(
    "reference", ["shufflenet:tiny", "shufflenet:cifar?width=0.25", "nas-bench-macro?width=0.25&resolution=16"]
)
def test_the_spaces_keep_the_contract(reference):
    check_space(spaces.get(reference))


@pytest.mark.parametrize(
    ("arch", "macs", "weights"),
    [
        (PUBLISHED, 322_918_720, 3_529_312),
        ((0,) * 20, 295_842_496, 3_132_448),
        ((1,) * 20, 313_654_976, 3_189_536),
        ((2,) * 20, 340_373_696, 3_275_168),
        ((3,) * 20, 358_825_920, 3_830_400),
    ],
)
def test_counts_are_those_of_spos(arch, macs, weights):
    space = spaces.get("shufflenet")
    assert Complexity(space, "macs")([arch]) == macs
    layers = [m for m in space.network(arch).modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert sum(layer.weight.numel() for layer in layers) == weights
    assert all(layer.bias is None for layer in layers)


def test_the_space_is_that_of_spos():
    space = spaces.get("shufflenet")
    terms = Complexity(space, "macs").terms()
    assert space.size == 4**20
    assert terms.const + sum(u.min() for u in terms.unary) == pytest.approx(270.36e6, abs=5e3)
    assert terms.const + sum(u.max() for u in terms.unary) == pytest.approx(398.61e6, abs=5e3)
    assert terms.const + sum(u.mean() for u in terms.unary) == pytest.approx(327e6, abs=5e5)


@pytest.mark.parametrize("kernel", [3, 5, 7, None])
def test_half_of_a_block_s_output_is_the_even_channels_of_its_input(kernel):
    x, block = torch.randn(2, 8, 6, 6), ShuffleBlock(8, 8, kernel, 1)
    assert torch.equal(block(x)[:, :4], x[:, ::2])
    changed = x.clone()
    changed[:, ::2] += 1.0
    assert torch.equal(block.eval()(x)[:, 4:], block(changed)[:, 4:])  # the rest is made of the odd ones alone
    assert ShuffleBlock(8, 20, kernel, 2)(x).shape == (2, 20, 3, 3)


def test_a_block_that_widens_without_a_stride_sees_all_channels_in_both_branches():
    x, block = torch.randn(1, 8, 6, 6), ShuffleBlock(8, 20, 3, 1).eval()
    before = block(x)
    assert before.shape == (1, 20, 6, 6)
    for channel in range(8):
        moved = x.clone()
        moved[:, channel] += 1.0
        apart = (block(moved) - before).abs().amax((0, 2, 3))
        assert apart[:8].any()
        assert apart[8:].any()


def test_norms_of_a_supernet_have_no_scale_and_those_of_networks_do():
    space = spaces.get("shufflenet:tiny")
    norms = lambda module: [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]  # noqa: E731
    supernet = space.supernet()
    assert not any(norm.affine for norm in norms(supernet))
    assert all(norm.affine for norm in norms(space.network((0, 1, 2, 3))))
    x = space.inputs(4)
    assert torch.equal(supernet.eval()(*x, path=Path((3, 2, 1, 0))), supernet.extract((3, 2, 1, 0)).eval()(*x))


def test_a_width_that_leaves_a_stage_without_new_channels_is_refused():
    with pytest.raises(UserError, match="wider"):
        spaces.get("shufflenet?width=0.1")


@needs_data
def test_networks_of_nas_bench_macro_cost_what_its_table_says():
    space = spaces.get("nas-bench-macro")
    table = pd.read_csv(f"{SARTOR_DATA}/nas_bench_macro_cifar10.csv.gz", dtype={"arch": str})
    archs = [tuple(map(int, text)) for text in table["arch"]]
    assert sorted(archs) == list(space.enumerate())
    np.testing.assert_array_equal(Complexity(space, "macs")(archs), table["flops"])
    for i in range(0, len(archs), 811):
        assert sum(p.numel() for p in space.network(archs[i]).parameters()) == table["params"][i]
