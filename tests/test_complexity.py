"""Counts of networks."""

import numpy as np
import pytest
import torch
from torch import nn

from sartor.core import Part, SearchSpace, SoftScore, UserError
from sartor.spaces.complexity import Complexity, count, count_network
from tests.contracts.scores import check_score
from tests.fakes import Grid, Ragged


def meta(module: nn.Module, *shape: int) -> dict[str, float]:
    return count(module.to("meta"), [torch.empty(1, *shape, device="meta")])


def test_a_convolution_by_hand() -> None:
    found = meta(
        nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=4), nn.BatchNorm2d(16), nn.ReLU6()), 8, 10, 10
    )
    assert found["macs"] == 5 * 5 * 16 * 2 * 9
    assert found["params"] == 16 * 2 * 9
    assert found["mem_access_bytes"] == 4 * (8 * 100 + 16 * 2 * 9 + 16 * 25)


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_on_vectors_and_sequences(bias: bool) -> None:
    for rows, shape in ((1, (6,)), (7, (7, 6))):
        found = meta(nn.Linear(6, 5, bias=bias), *shape)
        assert found == {"macs": rows * 30, "params": 30, "mem_access_bytes": 4 * (rows * 6 + 30 + rows * 5)}


@pytest.mark.parametrize("name", ["macs", "params", "mem_access_bytes"])
@pytest.mark.parametrize("space", [Ragged(), Grid(), Ragged().restrict({0: [2, 0], 2: [1, 3]})], ids=lambda s: s.name)
def test_counts_are_those_of_the_whole_network(space: SearchSpace, name: str) -> None:
    score = Complexity(space, name)
    check_score(score, space)
    assert isinstance(score, SoftScore) == space.local_parts == (score.terms() is not None)
    archs = space.sample(np.random.default_rng(1), 6)
    np.testing.assert_allclose(score(archs), [count_network(space, a)[name] for a in archs])


def test_a_part_is_counted_once() -> None:
    built = []

    class Counting(Ragged):
        def parts(self, arch):  # type: ignore[no-untyped-def]
            def watched(part: Part) -> Part:
                return Part(part.key, part.slot, lambda: built.append(part.key) or part.make(), part.inputs)  # type: ignore[func-returns-value]

            return [watched(p) for p in super().parts(arch)]

    score = Complexity(Counting(), "macs")
    score(list(Counting().enumerate()))
    assert len(built) == len(set(built))


def test_what_cannot_be_counted_is_said() -> None:
    with pytest.raises(UserError, match="latency_ms"):
        Complexity(Ragged(), "latency_ms")
