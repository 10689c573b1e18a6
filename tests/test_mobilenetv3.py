"""The MobileNetV3 space of Once-for-All: sizes, counts, weight sharing."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from sartor import spaces
from sartor.core import Path, UserError
from sartor.layers.elastic import ElasticMBConv, SlicedNorm
from sartor.predictors.ridge import Ridge
from sartor.quality.supernet import SupernetScore, train_supernet
from sartor.runs import Run
from sartor.spaces.complexity import Complexity, count_part
from sartor.spaces.elastic import UnitSupernet
from sartor.spaces.mobilenetv3 import MobileNetV3, blocks, features
from tests.contracts.spaces import check_space, shaken
from tests.test_data_sources import SARTOR_DATA, needs_data
from tests.test_mathnas import textures

SMALL = "mobilenetv3:cifar?width=0.35&resolution=8"


def space_of(reference: str = SMALL) -> MobileNetV3:
    space = spaces.get(reference)
    assert isinstance(space, MobileNetV3)
    return space


def test_the_space_keeps_the_contract() -> None:
    check_space(space_of(), samples=2)


def test_units_have_7371_blocks_of_two_to_four_layers() -> None:
    assert len(blocks()) == len(set(blocks())) == 9**2 + 9**3 + 9**4 == 7371
    space = space_of("mobilenetv3")
    assert space.size == 7371**5
    assert len({tuple(row) for row in features().tolist()}) == 7371
    k = space.index([(3, 4), (7, 6), (5, 3)])
    assert space.slots[2].candidates[k] == "k3e4 k7e6 k5e3"
    assert len(space.parts((k, 0, 0, 0, 0))) == 2 + 3 + 4 * 2
    with pytest.raises(UserError, match="kernels 3, 5 or 7"):
        space.index([(3, 5), (3, 3)])


@needs_data
def test_macs_and_parameters_are_those_of_the_published_networks() -> None:
    space = space_of("mobilenetv3")
    for row in pd.read_csv(f"{SARTOR_DATA}/ofa_mobilenetv3_imagenet_top1.csv").iloc[::300].to_dict("records"):
        ks, e, d = ([int(x) for x in str(row[key]).split()] for key in ("ks", "e", "d"))
        arch = [space.index([(ks[4 * u + i], e[4 * u + i]) for i in range(d[u])]) for u in range(5)]
        assert sum(count_part(part)["macs"] for part in space.parts(arch)) == row["macs"]
        assert sum(p.numel() for p in space.network(arch).parameters()) == row["params"]


def test_macs_add_up_over_units() -> None:
    space = space_of()
    window = space.restrict({i: [0, 5, 80, 100, 7370] for i in range(5)})
    macs = Complexity(window)
    archs = window.sample(np.random.default_rng(0), 10)
    terms = macs.terms()
    assert terms is not None
    counted = [sum(count_part(part)["macs"] for part in window.parts(arch) or []) for arch in archs]
    np.testing.assert_allclose(terms(window, archs), counted)


def test_few_networks_tell_about_all_blocks() -> None:
    space = space_of()
    macs = lambda archs: np.array([sum(count_part(p)["macs"] for p in space.parts(a)) for a in archs])  # noqa: E731
    rng = np.random.default_rng(0)
    train, test = space.sample(rng, 300), space.sample(rng, 200)
    fitted = Ridge().fit(space, train, macs(train), metric=Complexity(space).metric)
    error = fitted(test) - macs(test)
    assert error.std() < 0.01 * macs(test).std()


# ---------------------------------------------------------------------- weights that are shared


def test_smaller_blocks_are_part_of_larger_ones() -> None:
    layer = shaken(ElasticMBConv(8, 8, 1, True, nn.Hardswish, (3, 5, 7), (3, 4, 6)))
    layer.turn["5"].data.copy_(torch.eye(25))
    layer.turn["3"].data.copy_(torch.eye(9))
    small, large = layer.plain(3, 3), layer.plain(7, 6)
    narrow, wide = small.body[3].weight, large.body[3].weight
    assert narrow.shape == (24, 1, 3, 3)
    torch.testing.assert_close(narrow, wide[:24, :, 2:5, 2:5])
    torch.testing.assert_close(small.body[0].weight, large.body[0].weight[:24])


def test_only_what_runs_is_trained() -> None:
    space = space_of()
    supernet: Any = space.supernet()
    arch = tuple(space.index([(3, 3), (3, 3)]) for _ in range(5))
    supernet(*space.inputs(4), path=Path(arch)).sum().backward()
    for unit in supernet.units:
        assert all(p.grad is None for layer in unit[2:] for p in layer.parameters())
        for layer in unit[:2]:
            used = layer.shape[0] * 3
            assert layer.expand.weight.grad[used:].abs().max() == 0 < layer.expand.weight.grad[:used].abs().max()
            edge = layer.depth.weight.grad
            assert edge[:, :, 0].abs().max() == edge[:, :, :, 0].abs().max() == 0


def test_a_sliced_norm_is_a_norm_of_its_channels() -> None:
    wide, plain = SlicedNorm(6), nn.BatchNorm2d(4)
    x = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(0)) * 2 + 1
    for momentum in (0.1, None):
        wide.momentum = plain.momentum = momentum
        wide.reset_running_stats()
        plain.reset_running_stats()
        for part in (x, x[:4]):
            torch.testing.assert_close(wide(part), plain(part))
        copy = nn.BatchNorm2d(4)
        wide.fill(copy)
        torch.testing.assert_close(copy.state_dict(), plain.state_dict())
        assert wide.running_mean is not None
        assert wide.running_mean[4:].tolist() == [0.0, 0.0]
    wide.eval()
    plain.eval()
    torch.testing.assert_close(wide(x), plain(x))


@pytest.mark.parametrize("wrong", ["mobilenetv3:big", "mobilenetv3?width=0", "mobilenetv3?classes=1.5"])
def test_options_out_of_range_are_one_line(wrong: str) -> None:
    with pytest.raises(UserError) as error:
        spaces.get(wrong)
    assert "\n" not in str(error.value)


def test_a_restricted_supernet_is_trained_like_its_base() -> None:
    space = MobileNetV3("cifar", width=0.25, resolution=16)
    supernet: Any = space.restrict({0: [0, 100]}).supernet()
    assert supernet.nested


def test_a_nested_supernet_trains_its_ends_on_every_batch(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = spaces.get("mobilenetv3:cifar?width=0.2&resolution=8&classes=4&channels=1")
    ran: list[tuple[int, ...]] = []
    forward = UnitSupernet.forward
    monkeypatch.setattr(
        UnitSupernet, "forward", lambda self, *x, path: ran.append(path.index) or forward(self, *x, path=path)
    )
    with Run(tmp_path / "run", {}) as run:
        supernet = train_supernet(space, textures(), run, epochs=1, batch_size=64, lr=0.05)
    smallest, largest = (0,) * 5, (7370,) * 5
    steps = [ran[i : i + 4] for i in range(0, len(ran), 4)]
    assert len(steps) == 2
    assert all(step[:2] == [largest, smallest] for step in steps)
    assert len({arch for step in steps for arch in step[2:]}) == 4
    assert np.isfinite(SupernetScore(space, supernet, textures())([smallest, largest])).all()
