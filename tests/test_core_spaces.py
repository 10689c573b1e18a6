"""The algebra of spaces, on fakes and on random forests of slots."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from sartor.core import SearchSpace, Slot, UserError
from sartor.core.restricted import Restricted
from tests.contracts.spaces import check_space
from tests.fakes import Forest, Grid, Ragged


@st.composite
def forests(draw: st.DrawFn) -> Forest:
    """1 to 5 slots of 1 to 4 candidates; any slot may hang on any earlier one, also on no candidate of it."""
    slots: list[Slot] = []
    for i in range(draw(st.integers(1, 5))):
        names = tuple(f"c{k}" for k in range(draw(st.integers(1, 4))))
        when = None
        if i > 0 and draw(st.booleans()):
            parent = draw(st.integers(0, i - 1))
            when = (parent, frozenset(draw(st.sets(st.integers(0, len(slots[parent]) - 1)))))
        slots.append(Slot(f"s{i}", names, when=when))
    return Forest(slots)


@pytest.mark.parametrize(
    "space",
    [Ragged(), Grid(), Ragged().restrict({0: [0, 2], 2: [3, 1]}), Grid(0, 3), Grid(1, 1)],
    ids=["ragged", "grid", "window", "no slots", "one network"],
)
def test_the_fakes_satisfy_the_contract(space: SearchSpace) -> None:
    check_space(space, setup="import tests.fakes")


@settings(max_examples=100, deadline=None)
@given(forests(), st.randoms(use_true_random=False))
def test_size_enumeration_canonical_form_and_encoding_agree(space: Forest, random) -> None:  # type: ignore[no-untyped-def]
    everything = list(space.enumerate())
    assert len(set(everything)) == len(everything) == space.size
    raw = tuple(random.randrange(len(s)) for s in space.slots)
    arch = space.canonical(raw)
    assert arch in everything
    assert space.canonical(arch) == arch
    assert space.active(arch) == space.active(raw)
    assert space.canonicals([raw, np.array(raw, dtype=int), arch]) == [arch] * 3
    assert space.canonicals([raw, arch]) == [arch] * 2
    rows = space.one_hot(everything)
    assert len({tuple(r) for r in rows}) == space.size, "one-hot rows must tell architectures apart"
    assert set(space.sample(np.random.default_rng(0), 20)) <= set(everything)


@pytest.mark.parametrize("bad", [(0, 0, True), (0, 0), (0, 0, 3), (0, 0, -1), (0, 0, 10**30), (0, 0, 0.5)])
def test_of_many_architectures_a_wrong_one_is_named(bad: tuple[int, ...]) -> None:
    space = Grid(3, 3)
    assert space.canonicals([]) == []
    with pytest.raises(UserError, match="architecture"):
        space.canonicals([(0, 1, 2), bad])


@settings(max_examples=60, deadline=None)
@given(forests(), st.data())
def test_windows_of_windows_are_windows(space: Forest, data: st.DataObject) -> None:
    def keep(of: SearchSpace) -> dict[int, list[int]]:
        return {
            i: data.draw(st.lists(st.integers(0, len(s) - 1), min_size=1, unique=True)) for i, s in enumerate(of.slots)
        }

    outer = space.restrict(keep(space))
    inner = outer.restrict(keep(outer))
    assert isinstance(outer, Restricted)
    assert isinstance(inner, Restricted)
    assert inner.base is space
    lifted = {inner.lift(a) for a in inner.enumerate()}
    assert len(lifted) == inner.size
    assert lifted <= {outer.lift(a) for a in outer.enumerate()} <= set(space.enumerate())


@settings(max_examples=60, deadline=None)
@given(forests(), st.data())
def test_enable_makes_a_slot_exist(space: Forest, data: st.DataObject) -> None:
    slot = data.draw(st.integers(0, len(space.slots) - 1))
    arch = data.draw(st.sampled_from(list(space.enumerate())))
    found = space.enable(arch, slot)
    possible = any(space.active(a)[slot] for a in space.enumerate())
    assert (found is not None) == possible
    if found is not None:
        assert space.active(found)[slot]
        if space.active(arch)[slot]:
            assert found == arch


def test_samples_are_uniform_over_networks_or_over_choices() -> None:
    space = Ragged()
    everything = list(space.enumerate())
    assert len(everything) == 3 + 12 + 36
    drawn = space.sample(np.random.default_rng(3), 20_000)
    counts = np.array([drawn.count(a) for a in everything])
    assert chisquare(counts).pvalue > 0.001
    drawn = space.sample(np.random.default_rng(3), 20_000, uniform_over="choices")
    depths = np.bincount([a[0] for a in drawn])
    assert chisquare(depths).pvalue > 0.001
    fourth = [a[4] for a in drawn if space.active(a)[4]]
    assert chisquare(np.bincount(fourth)).pvalue > 0.001


def test_a_sub_space_samples_uniformly_too() -> None:
    space = Ragged().restrict({0: [2, 0], 3: [1]})
    drawn = space.sample(np.random.default_rng(5), 20_000)
    counts = np.array([drawn.count(a) for a in space.enumerate()])
    assert len(counts) == 3 + 3 * 4 * 2
    assert chisquare(counts).pvalue > 0.001


@pytest.mark.parametrize("keep", [{9: [0]}, {-1: [0]}, {1: []}, {1: [0, 0]}, {1: [3]}, {1: [-1]}])
def test_a_window_that_makes_no_sense_is_refused(keep: dict[int, list[int]]) -> None:
    for space in (Ragged(), Ragged().restrict({1: [0, 1]})):
        with pytest.raises(UserError, match="slot"):
            space.restrict(keep)


def test_windows_in_another_order_are_other_spaces_with_the_same_networks() -> None:
    space = Ragged()
    turned, plain = space.restrict({1: np.array([2, 1, 0])}), space.restrict({})  # type: ignore[dict-item]
    assert turned.id != plain.id
    assert turned.key((0, 0, 0, 0, 0)) == space.key((0, 2, 0, 0, 0))


def test_features_of_a_slot_reach_the_predictors() -> None:
    space = Ragged()
    rows = space.one_hot([(1, 2, 3, 0, 0), (0, 2, 0, 0, 0)]) @ space.feature_map
    assert rows.shape == (2, 3 + 3 + 2 + 2 + 2)
    assert rows[0].tolist() == [0, 1, 0, 0, 0, 1, 5, 0, 0, 0, 0, 0]
    assert rows[1].tolist() == [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"space": {"space": "other"}}, "belongs to space"),
        ({"architecture": [0, 0]}, "has 2 entries"),
        ({"architecture": [0, 9, 0, 0, 0]}, "entry 1"),
        ({"architecture": [0, 1.5, 0, 0, 0]}, "entry 1"),
        ({"architecture": "00000"}, "list"),
        ({"schema": 99}, "schema 99"),
    ],
)
def test_an_architecture_file_of_another_kind_is_refused(change: dict[str, object], says: str) -> None:
    space = Ragged()
    with pytest.raises(UserError, match=says):
        space.from_json({**space.to_json((0, 0, 0, 0, 0)), **change})
    with pytest.raises(UserError, match="not an architecture file"):
        space.from_json([1, 2])
