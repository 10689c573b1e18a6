"""Block tables: worlds in which the algebra is exact, how many networks are asked about, what is published."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sartor.choose.exact import maximise
from sartor.core import METRICS, F, Score, SearchSpace, Slot, Terms, TermScore, UserError
from sartor.quality.blocks import Macs, average_network, base_network, block_score, differences
from tests.contracts.scores import check_score
from tests.fakes import Forest, Grid, Ragged, additive
from tests.test_core_spaces import forests

ACCURACY, LATENCY = METRICS["accuracy"], METRICS["latency_ms"]
MODES: tuple[Macs, ...] = get_args(Macs)


class Counting(Score):
    """A score that remembers what it was asked."""

    def __init__(self, score: Score) -> None:
        self.score, self.space, self.metric = score, score.space, score.metric
        self.asked: list[tuple[int, ...]] = []

    def __call__(self, archs: Sequence[Sequence[int]]) -> F:
        self.asked += [tuple(a) for a in archs]
        return self.score(archs)


def sizes(space: SearchSpace, seed: int = 0) -> Terms:
    rng = np.random.default_rng(seed)
    return Terms(20.0, tuple(rng.uniform(5, 60, len(s)) for s in space.slots))


def ragged() -> Forest:
    return Forest([Slot(f"s{i}", tuple(map(str, range(n)))) for i, n in enumerate((2, 5, 3, 4))])


@pytest.mark.parametrize("space", [Grid(4, 3), Grid(6, 5), ragged(), Ragged()], ids=["4x3", "6x5", "ragged", "depths"])
def test_what_is_asked_and_what_is_exact_about_the_base(space: SearchSpace) -> None:
    macs = sizes(space)
    for mode in MODES:
        counting = Counting(additive(space, 3))
        score = block_score(space, counting, macs, mode=mode)
        assert len(set(counting.asked)) == len(counting.asked)
        if all(slot.when is None for slot in space.slots):
            assert len(counting.asked) == sum(map(len, space.slots)) - len(space.slots) + 2
        base = base_network(space, macs)
        assert score([base]) == pytest.approx(additive(space, 3)([base]))
        check_score(score, space)
    _, lost = differences(space, additive(space, 3), base, [average_network(space, macs)])
    on = space.active(base)
    assert [b[k] for b, k, o in zip(lost, base, on) if o] == [0.0] * sum(on)


@settings(max_examples=100, deadline=None)
@given(forests(), st.integers(0, 999))
def test_what_adds_up_is_predicted_exactly(space: Forest, seed: int) -> None:
    true, archs = additive(space, seed), list(space.enumerate())
    predicted = block_score(space, true, sizes(space, seed), contexts=space.sample(np.random.default_rng(seed), 2))
    np.testing.assert_allclose(predicted(archs), true(archs), rtol=1e-12)


@settings(max_examples=50, deadline=None)
@given(forests(), st.integers(0, 999))
def test_any_network_can_be_the_base_and_what_adds_up_does_not_depend_on_it(space: Forest, seed: int) -> None:
    true, archs = additive(space, seed), list(space.enumerate())
    (base,) = space.sample(np.random.default_rng(seed), 1)
    _, lost = differences(space, true, base, archs)
    assert all(lost[i][base[i]] == 0 for i, on in enumerate(space.active(base)) if on)
    predicted = block_score(space, true, sizes(space, seed), base=base)
    np.testing.assert_allclose(predicted(archs), true(archs), rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(forests(), st.integers(0, 999), st.sampled_from(MODES))
def test_what_is_chosen_keeps_the_limit_and_a_wider_one_predicts_no_less(space: Forest, seed: int, mode: Macs) -> None:
    macs = sizes(space, seed)
    accuracy = block_score(space, additive(space, seed), macs, mode=mode).terms()
    latency = block_score(space, additive(space, seed + 1), macs).terms()
    costs = np.unique(latency(space, list(space.enumerate())))
    values = []
    for limit in [costs[0] - 1.0, *costs[:: max(1, len(costs) // 5)]]:
        found = maximise(space, accuracy, [(latency, -np.inf, float(limit))])
        if found.architecture is None:
            assert limit < costs[0]
        else:
            assert latency(space, [found.architecture])[0] <= limit + 1e-9 * abs(limit)
            values.append(found.value)
    assert values == pytest.approx(np.maximum.accumulate(values), rel=1e-9)


def test_with_equal_macs_every_mode_is_exact_and_they_agree() -> None:
    space = ragged()
    macs = Terms(20.0, tuple(np.full(len(s), 30.0) for s in space.slots))
    true, archs = additive(space, 5), list(space.enumerate())
    for mode in MODES:
        np.testing.assert_allclose(block_score(space, true, macs, mode=mode)(archs), true(archs), rtol=1e-12)


def test_a_world_in_which_losses_fall_with_size_is_predicted_exactly_from_one_context() -> None:
    """Acc = A - S / F; measured in one context, a difference times the MACs there is the same at any size."""
    space, rng = Grid(4, 3), np.random.default_rng(0)
    macs = sizes(space)
    base = base_network(space, macs)
    lost = [rng.uniform(0, 200, 3) for _ in space.slots]
    for b, k in zip(lost, base):
        b[k] = 0.0
    unary = tuple(90.0 * f - b for f, b in zip(macs.unary, lost))
    true = TermScore(space, ACCURACY, Terms(90.0 * macs.const, unary, over=macs))
    archs = list(space.enumerate())
    # at the base F(base) b_ij F_ij / F_ij: exact where the context is the base itself
    found = block_score(space, true, macs, contexts=[base], mode="context")
    np.testing.assert_allclose(found(archs), true(archs), rtol=1e-12)
    assert abs(block_score(space, true, macs, contexts=[base], mode="none")(archs) - true(archs)).max() > 0.1


def test_full_and_partial_contexts_average_over_networks() -> None:
    space = Grid(3, 3)
    rng = np.random.default_rng(1)
    values = {a: float(v) for a, v in zip(space.enumerate(), rng.normal(70, 5, space.size))}

    class Tabled(Score):
        metric = ACCURACY

        def __init__(self) -> None:
            self.space = space

        def __call__(self, archs: Sequence[Sequence[int]]) -> F:
            return np.array([values[tuple(a)] for a in archs])

    everything = list(space.enumerate())
    _, lost = differences(space, Tabled(), (2, 2, 2), everything)
    for i in range(3):
        means = [np.mean([v for a, v in values.items() if a[i] == j]) for j in range(3)]
        assert lost[i] == pytest.approx(means[2] - np.array(means))
    _, one = differences(space, Tabled(), (2, 2, 2), [(0, 1, 2)])
    assert one[1][0] == pytest.approx(values[0, 2, 2] - values[0, 0, 2])


def test_layers_that_the_average_network_has_not_are_average_where_they_come_to_exist() -> None:
    """Depths 1 to 4; a deep layer is measured behind average ones, not behind the smallest."""
    layer = ("small", "middle", "large")
    deep = [Slot(f"layer{i}", layer, when=(0, frozenset(range(i - 1, 4)))) for i in range(2, 5)]
    space = Forest([Slot("depth", ("1", "2", "3", "4")), Slot("layer1", layer), *deep])
    macs = Terms(1.0, (np.zeros(4), *[np.array([1.0, 5.0, 9.0])] * 4))
    assert average_network(space, macs) in ((1, 1, 1, 0, 0), (2, 1, 1, 1, 0))
    asked = Counting(TermScore(space, ACCURACY, macs))
    block_score(space, asked, macs)
    for j in range(3):
        assert (3, 1, 1, 1, j) in asked.asked
    assert (3, 1, 1, 0, 1) not in asked.asked


def test_what_a_depth_loses_is_scaled_by_the_layers_it_was_measured_with() -> None:
    """The law of Eq. 5 holds for a network of depths alone, whose layers are the base's when depths are measured."""
    layer = ("small", "large")
    deep = [Slot(f"layer{i}", layer, when=(0, frozenset(range(i - 1, 3)))) for i in range(2, 4)]
    space = Forest([Slot("depth", ("1", "2", "3")), *deep])
    macs = Terms(10.0, (np.zeros(3), *[np.array([3.0, 9.0])] * 2))
    law = Counting(additive(space, 2))
    predicted = block_score(space, law, macs, mode="per_block")
    archs = [space.canonical((depth, 1, 1)) for depth in range(3)]
    np.testing.assert_allclose(predicted(archs), law(archs), rtol=1e-12)


def test_reference_and_average_follow_the_macs() -> None:
    space = Grid(2, 4)
    macs = Terms(1.0, (np.array([1.0, 9, 5, 4]), np.array([2.0, 2, 2, 10])))
    assert base_network(space, macs) == (1, 3)
    assert average_network(space, macs) == (2, 0)
    deep = Ragged()
    assert base_network(deep, Terms(1.0, tuple(np.ones(len(s)) for s in deep.slots)))[0] == 2
    pair = {(0, 1): np.outer(np.ones(4), [0.0, 30, 0, 0])}
    assert base_network(space, Terms(1.0, macs.unary, pair)) == (1, 1)
    for terms in (Terms(1.0, macs.unary, over=macs), Terms(1.0, sizes(deep).unary, pair)):
        with pytest.raises(UserError, match="add up"):
            base_network(deep, terms)


def test_macs_over_neighbours_scale_differences_as_those_that_add_up_do() -> None:
    space, rng = Grid(3, 3), np.random.default_rng(0)
    plain = sizes(space)
    macs = Terms(20.0, plain.unary, {(0, 1): rng.uniform(1, 9, (3, 3)), (1, 2): rng.uniform(1, 9, (3, 3))})
    archs = list(space.enumerate())
    true, counts = additive(space, 3), macs(space, archs)
    base = base_network(space, macs)
    score = block_score(space, true, macs, mode="per_block")
    _, lost = differences(space, true, base, [average_network(space, macs)])
    for arch, said in zip(archs, score(archs)):
        mean = [np.mean([c for a, c in zip(archs, counts) if a[i] == j]) for i, j in enumerate(arch)]
        loss = sum(b[j] * f for b, j, f in zip(lost, arch, mean)) / macs(space, [arch])[0]
        assert said == pytest.approx(true([base])[0] - loss)


def test_unknown_numbers_are_refused() -> None:
    space = Grid(2, 3)

    class Unknown(Score):
        metric = LATENCY

        def __init__(self) -> None:
            self.space = space

        def __call__(self, archs: Sequence[Sequence[int]]) -> F:
            return np.array([np.nan if tuple(a) == (0, 1) else 1.0 for a in archs])

    macs = Terms(1.0, (np.array([1.0, 2, 3]), np.array([1.0, 2, 3])))
    with pytest.raises(UserError, match="unknown"):
        block_score(space, Unknown(), macs, contexts=[(0, 0)])
    assert block_score(space, Unknown(), macs, contexts=[(0, 0), (2, 2)])([(1, 1)]) == pytest.approx([1.0])


def test_the_published_tables_give_the_published_optima() -> None:
    """ALGORITHMS F3: MobileNetV3 on a TX2 GPU, five blocks a unit, without the MACs factor."""
    loss = np.array(
        [
            [0.279, 0.085, 0.047, -0.011, 0],
            [0.354, 0.257, 0.088, 0.065, 0],
            [0.578, 0.369, 0.113, 0.058, 0],
            [1.252, 0.786, 0.234, 0.168, 0],
            [0.523, 0.083, 0.105, -0.055, 0],
        ]
    )
    ms = np.array(
        [
            [4.065, 6.166, 6.193, 8.267, 8.321],
            [7.203, 10.886, 10.941, 14.569, 14.651],
            [5.457, 8.267, 8.376, 11.077, 11.186],
            [8.567, 12.932, 13.014, 17.380, 17.434],
            [8.567, 12.932, 12.987, 17.325, 17.407],
        ]
    )
    accuracy, latency = Terms(79.23, tuple(-loss)), Terms(0.0, tuple(ms))
    published = {
        35: ((0, 0, 0, 0, 0), 76.245),
        45: ((0, 2, 2, 2, 0), 77.993),
        55: ((2, 2, 4, 2, 1), 78.778),
        60: ((2, 2, 4, 4, 1), 79.013),
        1e9: ((3, 4, 4, 4, 3), 79.296),
    }
    for limit, (arch, value) in published.items():
        found = maximise(Grid(5, 5), accuracy, [(latency, -np.inf, float(limit))])
        assert (found.architecture, found.value) == (arch, pytest.approx(value, abs=2e-3))
    assert latency(Grid(5, 5), [arch])[0] == pytest.approx(68.864, abs=2e-3)
