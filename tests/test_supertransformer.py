"""The SuperTransformer space: sizes, what each choice does, weight sharing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from sartor import spaces
from sartor.core import Path, UserError
from sartor.quality.blocks import additive_macs
from sartor.spaces.complexity import COUNTED, Complexity, count_network
from sartor.spaces.supertransformer import DECODER, ENCODER, SuperTransformer
from tests.contracts.spaces import check_space

SMALL = "supertransformer?source=40&target=50&length=7&width=0.05&dropout=0"


def space_of(reference: str = SMALL) -> SuperTransformer:
    space = spaces.get(reference)
    assert isinstance(space, SuperTransformer)
    return space


@pytest.mark.parametrize("embeds", ["false", "true"])
def test_the_space_keeps_the_contract(embeds: str) -> None:
    check_space(space_of(f"{SMALL}&embeds={embeds}"), samples=2)


def test_sizes_are_the_published_ones() -> None:
    assert space_of("supertransformer").size == 46_656 * 2_238_976_116
    assert space_of("supertransformer?embeds=true").size == 4 * 46_656 * 2_238_976_116
    assert (ENCODER[5], ENCODER[2]) == ((3072, 8), (2048, 4))
    assert DECODER[35] == (3072, 8, 8, 3)
    assert DECODER[13] == (2048, 4, 4, 2)


def arch_of(space: SuperTransformer, encoder: int, depth: int, decoder: int) -> tuple[int, ...]:
    return space.canonical((*[encoder] * 6, depth - 1, *[decoder] * 6))


def test_parameters_are_those_of_the_layers() -> None:
    space = space_of("supertransformer?source=100&target=200")
    e, qkv = 512, 512
    attention = 4 * (e * qkv + e)
    for encoder, depth, decoder in ((5, 6, 35), (0, 1, 0), (2, 3, 13)):
        ffn, other = ENCODER[encoder][0], DECODER[decoder][0]
        mine = 6 * (attention + 2 * e * ffn + ffn + e + 4 * e)
        theirs = depth * (2 * attention + 2 * e * other + other + e + 6 * e)
        network = space.network(arch_of(space, encoder, depth, decoder))
        assert sum(p.numel() for p in network.parameters()) == 100 * e + 200 * e + mine + theirs


def test_macs_add_up_over_slots_and_more_attended_layers_cost_more() -> None:
    space = space_of()
    macs = additive_macs(space)
    archs = space.sample(np.random.default_rng(0), 8)
    whole = [count_network(space, arch) for arch in archs]
    np.testing.assert_allclose(macs(space, archs), [counts["macs"] for counts in whole])
    for name in COUNTED:
        for counted in (space, space.restrict({2: [1, 4]})):
            few = archs if counted is space else counted.sample(np.random.default_rng(1), 3)
            expected = whole if counted is space else [count_network(counted, arch) for arch in few]
            np.testing.assert_allclose(Complexity(counted, name)(few), [counts[name] for counts in expected])
    wide = space_of(f"{SMALL}&embeds=true")
    (arch,) = wide.sample(np.random.default_rng(0), 1)
    assert Complexity(wide)([arch])[0] == count_network(wide, arch)["macs"]
    near, far = (arch_of(space, 2, 2, DECODER.index((2048, 4, 4, last))) for last in (1, 3))
    qkv, embed, length = space.wide(512), space.wide(512), 7
    keys = 2 * 2 * embed * qkv * length  # two more layers attended, keys and values of each
    products = 2 * 2 * qkv * length * length
    assert Complexity(space)([far])[0] - Complexity(space)([near])[0] == 2 * (keys + products)


def test_what_comes_later_and_what_is_padded_is_not_seen() -> None:
    space = space_of()
    network: Any = space.network(arch_of(space, 0, 2, DECODER.index((1024, 4, 4, 2)))).eval()
    source, target = space.inputs(2)
    source[:, 5:] = 0
    with torch.no_grad():
        before = network(source, target)
        changed = target.clone()
        changed[:, 4:] = 1
        torch.testing.assert_close(network(source, changed)[:, :4], before[:, :4])
        longer = torch.cat([source, torch.zeros(2, 3, dtype=torch.int64)], dim=1)
        torch.testing.assert_close(network(longer, target), before)
        other = source.clone()
        other[:, 0] = other[:, 0] % 39 + 1
        assert (network(other, target) - before).abs().max() > 1e-4


def test_a_path_is_the_network_with_its_weights() -> None:
    space = space_of(f"{SMALL}&embeds=true")
    supernet: Any = space.supernet().eval()  # type: ignore[attr-defined]
    x = space.inputs(3)
    for arch in space.sample(np.random.default_rng(0), 4):
        with torch.no_grad():
            torch.testing.assert_close(supernet.extract(arch).eval()(*x), supernet(*x, path=Path(arch)))


@pytest.mark.parametrize("wrong", ["length=0", "embeds=2", "width=0", "source=1.5"])
def test_options_out_of_range_are_one_line(wrong: str) -> None:
    with pytest.raises(UserError) as error:
        spaces.get(f"supertransformer?{wrong}")
    assert "\n" not in str(error.value)
