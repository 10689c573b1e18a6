"""Choosers: the contract, and what is each one's own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sartor.choose.evolve import Evolution, Population, Within, mutate
from sartor.choose.pareto import NSGA2, front
from sartor.choose.sample import RandomSearch
from sartor.core import Budget, Slot, UserError
from tests.contracts.choosers import check_chooser
from tests.fakes import Forest, Grid, Ragged, additive


@pytest.mark.parametrize("space", [Ragged(), Grid(6, 4)], ids=["ragged", "grid"])
@pytest.mark.parametrize("batch", [1, 5])
def test_random_search_keeps_the_contract(space, batch) -> None:
    check_chooser(lambda: RandomSearch(space, batch=batch, seed=3), space, additive(space))


def test_random_search_visits_a_small_space_once_each_and_then_has_nothing_to_ask() -> None:
    space = Grid(3, 3)
    search, seen = RandomSearch(space, batch=4), []
    while asked := search.ask():
        seen += asked
        search.tell(asked, np.zeros(len(asked)))
    assert sorted(seen) == sorted(space.enumerate())


def test_a_batch_below_one_is_refused() -> None:
    with pytest.raises(UserError, match="batch=0"):
        RandomSearch(Grid(2, 2), batch=0)


# ---------------------------------------------------------------------- evolution


@pytest.mark.parametrize("space", [Ragged(), Grid(6, 4)], ids=["ragged", "grid"])
@pytest.mark.parametrize("batch", [1, 5])
def test_evolution_keeps_the_contract(space, batch) -> None:
    make = lambda: Evolution(space, population=6, sample=3, batch=batch, seed=3)  # noqa: E731
    check_chooser(make, space, additive(space), rounds=10)


@given(seed=st.integers(0, 2**32 - 1), changes=st.integers(1, 6))
def test_a_mutation_changes_one_existing_slot_and_what_hangs_on_it(seed, changes) -> None:
    space, rng = Ragged(), np.random.default_rng(seed)
    arch = space.sample(rng, 1)[0]
    for _ in range(changes):
        child = mutate(space, arch, rng)
        assert space.canonical(child) == child != arch
        both = [a and b for a, b in zip(space.active(arch), space.active(child))]
        assert sum(a != b for a, b, on in zip(arch, child, both) if on) == 1
        arch = child


def test_mutations_reach_every_neighbour_and_draw_what_comes_to_exist() -> None:
    space, rng = Ragged(), np.random.default_rng(0)
    shallow = (0, 1, 0, 0, 0)
    children = {mutate(space, shallow, rng) for _ in range(400)}
    assert {c for c in children if c[0] == 0} == {(0, 0, 0, 0, 0), (0, 2, 0, 0, 0)}
    assert {c for c in children if c[0] == 1} == {(1, 1, k, 0, 0) for k in range(4)}
    assert len({c for c in children if c[0] == 2}) == 4 * 3  # second, and third with its fourth


def test_a_space_without_a_choice_does_not_change() -> None:
    space = Forest([Slot("only", ("a",)), Slot("never", ("a", "b"), when=(0, frozenset()))])
    assert mutate(space, (0, 0), np.random.default_rng(0)) == (0, 0)


@pytest.mark.parametrize("better", ["less", "more"])
def test_evolution_finds_in_fewer_questions_what_random_search_does_not(better) -> None:
    space = Grid(8, 4)
    score, sign = additive(space), 1 if better == "more" else -1
    best = {}
    for name, search in (
        ("evolution", Evolution(space, better=better, population=20, sample=5)),
        ("random", RandomSearch(space)),
    ):
        while len(search.told) < 400:
            asked = search.ask()
            search.tell(asked, score(asked))
        best[name] = max(sign * v for v in search.told.values())
    optimum = sum((u * sign).max() for u in score.terms().unary) + sign * score.terms().const
    assert best["evolution"] == pytest.approx(optimum)
    assert best["random"] < optimum - 0.1


def test_the_oldest_dies_even_if_it_is_the_best() -> None:
    space = Grid(5, 5)
    search = Evolution(space, population=3, sample=30)
    first = search.ask()
    assert len(first) == 3
    search.tell(first, np.array([5.0, 0.0, 7.0]))

    def parent() -> set[int]:
        (child,) = search.ask()
        search.tell([child], np.array([9.0]))
        return {i for i, arch in enumerate(first) if sum(a != b for a, b in zip(child, arch)) == 1}

    assert [1 in parent() for _ in range(2)] == [True, True]  # alive are: 0 1 2, then 1 2 and a child
    assert 1 not in parent()


def test_failures_do_not_live_and_a_small_space_is_visited_once_each() -> None:
    space = Grid(3, 3)
    search, seen = Evolution(space, population=4, sample=2), []
    while asked := search.ask():
        seen += asked
        search.tell(asked, np.array([np.nan if arch[0] == 0 else float(sum(arch)) for arch in asked]))
    assert sorted(seen) == sorted(space.enumerate())
    assert all(arch[0] for arch in search._alive)


@pytest.mark.parametrize("wrong", [{"population": 0}, {"sample": 0}, {"batch": 0}])
def test_impossible_evolutions_are_refused(wrong) -> None:
    with pytest.raises(UserError, match="=0"):
        Evolution(Grid(2, 2), **wrong)


# ---------------------------------------------------------------------- populations


def near(space, share: float = 0.5, tolerance: float = 0.02) -> Within:
    """Costs that land between the least and the most expensive network."""
    cost = additive(space, 9)
    low, high = sum(u.min() for u in cost.terms().unary), sum(u.max() for u in cost.terms().unary)
    shift = cost.terms().const
    return Within(space, [Budget(cost, shift + low + share * (high - low), "at", tolerance)])


@pytest.mark.parametrize("space", [Ragged(), Grid(6, 4)], ids=["ragged", "grid"])
@pytest.mark.parametrize("again", [False, True])
def test_a_population_keeps_the_contract(space, again) -> None:
    make = lambda: Population(space, population=6, keep=3, again=again, seed=3)  # noqa: E731
    check_chooser(make, space, additive(space), rounds=8)


@given(seed=st.integers(0, 2**16), share=st.floats(0.3, 0.7))
@settings(max_examples=20, deadline=None)
def test_every_member_lands_and_the_best_never_gets_worse(seed, share) -> None:
    space = Grid(8, 5)
    within, score = near(space, share), additive(space, 2)
    search, best = Population(space, population=10, keep=4, within=within, seed=seed), -np.inf
    for _ in range(6):
        asked = search.ask()
        search.tell(asked, score(asked))
        assert len(set(search.members)) == len(search.members) == 10
        assert (within.distance(search.members) == 0).all()
        top = max(score(search.members))
        assert top >= best
        best = top


def test_a_generation_is_the_best_and_their_children() -> None:
    space = Grid(10, 4)
    search, score = Population(space, population=12, keep=6, gene_rate=0.1), additive(space, 1)
    first = search.ask()
    search.tell(first, score(first))
    parents = search.best()[:6]
    new = search.ask()
    assert search.members[:6] == parents
    assert len(new) == 6
    crossed = [all(any(p[i] == c for p in parents) for i, c in enumerate(child)) for child in new]
    assert all(crossed[:3])


def test_a_population_finds_what_random_search_does_not() -> None:
    space = Grid(10, 5)
    score = additive(space, 4)
    found = {}
    for name, search in (("population", Population(space, seed=1)), ("random", RandomSearch(space, batch=20))):
        while len(search.told) < 400:
            asked = search.ask()
            search.tell(asked, score(asked))
        found[name] = max(search.told.values())
    assert found["population"] > found["random"]


def test_asking_again_asks_for_those_that_stay_and_draws_the_same_children() -> None:
    asked = {}
    for again in (False, True):
        search = Population(Grid(6, 4), population=8, keep=4, again=again)
        search.tell(first := search.ask(), np.arange(8.0))
        asked[again] = search.ask()
    assert set(asked[True][:4]) == set(first[4:])
    assert asked[True][4:] == asked[False]


# ---------------------------------------------------------------------- fronts


def dominated(values) -> np.ndarray:
    """By definition: another row is as good in all, and better in one."""
    return np.array([any((o <= v).all() and (o < v).any() for o in values) for v in values])


@given(st.integers(1, 40), st.integers(1, 4), st.integers(0, 2**16))
def test_a_front_is_what_no_other_beats(rows, objectives, seed) -> None:
    values = np.random.default_rng(seed).integers(0, 5, size=(rows, objectives)).astype(float)
    assert sorted(front(values)) == list(np.flatnonzero(~dominated(values)))


@pytest.mark.parametrize("space", [Ragged(), Grid(6, 4)], ids=["ragged", "grid"])
@pytest.mark.parametrize("again", [False, True])
def test_nsga2_keeps_the_contract(space, again) -> None:
    one, other = additive(space), additive(space, 1)

    def both(archs):
        return np.column_stack([one(archs), other(archs)])

    make = lambda: NSGA2(space, better=("more", "less"), population=4, again=again, seed=3)  # noqa: E731
    check_chooser(make, space, both, rounds=8)


def test_nsga2_finds_the_front_that_enumeration_finds() -> None:
    space = Grid(5, 4)
    scores = [additive(space, seed) for seed in (1, 2)]
    every = list(space.enumerate())
    values = np.column_stack([score(every) for score in scores])
    true = {every[i] for i in front(values)}
    search = NSGA2(space, better=("less", "less"), population=20)
    while len(search.told) < 600:
        asked = search.ask()
        search.tell(asked, np.column_stack([score(asked) for score in scores]))
    assert len(true & set(search.front())) / len(true) >= 0.9
    random = space.sample(np.random.default_rng(0), 600)
    drawn = np.column_stack([score(random) for score in scores])
    assert len(true & {random[i] for i in front(drawn)}) < len(true & set(search.front()))


def test_a_crowded_network_loses_to_a_lonely_one_of_its_rank() -> None:
    space = Grid(2, 9)
    search = NSGA2(space, better=("less", "less"), population=2)
    search.members = [(i, 0) for i in range(4)]
    search.tell(search.members, np.array([[0.0, 9.0], [1.0, 8.0], [1.1, 7.9], [9.0, 0.0]]))
    assert set(search.best()[:2]) == {(0, 0), (3, 0)}
    search.tell([(4, 0)], np.array([[np.nan, 0.0]]))
    search.members.append((4, 0))
    assert (4, 0) not in search.best()


def test_a_repair_goes_to_the_budget_or_says_that_it_cannot() -> None:
    space = Grid(8, 5)
    within = near(space, 0.5, 0.03)
    repaired = within.repaired(space.sample(np.random.default_rng(0), 30))
    assert len(repaired) > 20
    assert np.all(within.distance(repaired) == 0)
    assert near(space, 3.0).repaired([(0,) * 8]) == []


def test_the_start_is_in_the_first_generation_where_it_keeps_the_budgets() -> None:
    space = Grid(6, 4)
    assert Population(space, start=[(1,) * 6]).ask()[0] == (1,) * 6
    beyond = Within(space, [Budget(additive(space, 9), 1e-6, "at")])
    assert Population(space, start=[(1,) * 6], within=beyond).ask() == []


@pytest.mark.parametrize("options", [{"keep": 20}, {"keep": 0}, {"gene_rate": 0.0}])
def test_populations_that_cannot_be(options) -> None:
    with pytest.raises(UserError):
        Population(Grid(3, 3), **options)
