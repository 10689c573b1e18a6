"""One candidate per slot, exactly: every form of reward and limit against brute force, and against other programs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp

from sartor.choose import lagrangian
from sartor.choose.exact import Limit, dominated, enumerated, front, maximise, top
from sartor.core import Architecture, F, SearchSpace, Terms
from tests.fakes import Forest, Grid, Ragged
from tests.test_core_spaces import forests

FORMS = ("unary", "pair", "ratio", "ratio of pairs")


def polynomial(space: SearchSpace, rng: np.random.Generator, form: str, scale: float = 1.0) -> Terms:
    """A polynomial or ratio of the given form; denominators are positive and as large as MACs are."""
    unary = tuple(scale * rng.normal(size=len(s)) for s in space.slots)
    pair: dict[tuple[int, int], F] = {}
    if "pair" in form:
        for i in range(len(space.slots)):
            for j in range(i + 1, len(space.slots)):
                if rng.random() < 0.5:
                    pair[i, j] = scale * rng.normal(size=(len(space.slots[i]), len(space.slots[j])))
    over = None
    if "ratio" in form:
        over = Terms(scale * rng.uniform(0.1, 1), tuple(scale * rng.uniform(0.1, 3, len(s)) for s in space.slots))
    return Terms(scale * rng.normal(), unary, pair, over)


def instance(space: SearchSpace, seed: int, form: str) -> tuple[Terms, list[Limit]]:
    """A reward and 0 to 3 limits, some two-sided, some that nothing holds."""
    rng = np.random.default_rng(seed)
    archs, limits = list(space.enumerate()), []
    for _ in range(rng.integers(0, 4)):
        terms = polynomial(space, rng, str(rng.choice(FORMS if "pair" in form else ("unary", "ratio"))))
        values = terms(space, archs)
        high = float(rng.choice(values) if rng.random() < 0.7 else values.min() - 0.1 * rng.random())
        low = -math.inf if rng.random() < 0.6 else high - float(rng.uniform(0, 1.5) * np.ptp(values))
        limits.append((terms, low, high) if rng.random() < 0.8 else (terms, high, math.inf))
    return polynomial(space, rng, form, scale=float(rng.choice([1.0, 1e-4, 1e8]))), limits


def check(space: SearchSpace, seed: int, form: str) -> None:
    reward, limits = instance(space, seed, form)
    truth = enumerated(space, reward, limits)
    exclude = [truth.architecture] if seed % 3 == 0 and truth.architecture is not None else []
    truth = enumerated(space, reward, limits, exclude=exclude)
    found = maximise(space, reward, limits, exclude=exclude, enumerate_below=0)
    assert found.status == truth.status
    if truth.architecture is not None:
        assert found.gap == 0.0
        assert found.architecture not in exclude
        assert found.value == pytest.approx(truth.value, rel=1e-9, abs=1e-9 * abs(reward.const))


@settings(max_examples=500, deadline=None)
@given(forests(), st.integers(0, 10**6), st.sampled_from(["unary", "ratio"]))
def test_sums_and_ratios_equal_brute_force(space: Forest, seed: int, form: str) -> None:
    check(space, seed, form)


@settings(max_examples=80, deadline=None)
@given(forests(), st.integers(0, 10**6), st.sampled_from(["pair", "ratio of pairs"]))
def test_interactions_equal_brute_force(space: Forest, seed: int, form: str) -> None:
    check(space, seed, form)


@settings(max_examples=40, deadline=None)
@given(forests(), st.integers(0, 10**6), st.sampled_from(["unary", "ratio"]))
def test_too_many_choices_within_the_gap_become_a_program(space: Forest, seed: int, form: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lagrangian, "MOST", 3 / 1_000)
        check(space, seed, form)


def test_nearly_linear_accuracies_are_solved() -> None:
    """Accuracy is almost a function of latency, so that thousands of choices are almost as good as the best."""
    space, rng = Grid(7, 6), np.random.default_rng(0)
    archs = list(space.enumerate())
    for seed in range(5):
        cost = [np.random.default_rng([seed, i]).uniform(1, 10, 6) for i in range(7)]
        reward = [c + 1e-3 * rng.normal(size=6) for c in cost]
        spent = Terms(0.0, tuple(cost))(space, archs)
        limits = [(Terms(0.0, tuple(cost)), -math.inf, float(np.median(spent)))]
        found, truth = maximise(space, reward, limits), enumerated(space, reward, limits)
        assert (found.status, found.value) == ("optimal", pytest.approx(truth.value, rel=1e-12))


# ---------------------------------------------------------------------- several


@settings(max_examples=60, deadline=None)
@given(forests(), st.integers(0, 10**6), st.sampled_from(FORMS))
def test_the_k_best(space: Forest, seed: int, form: str) -> None:
    reward, limits = instance(space, seed, form)
    values = sorted(reward(space, [a for a in space.enumerate() if _within(space, a, limits)]), reverse=True)
    found = top(space, reward, limits, k=4)
    assert [s.value for s in found] == pytest.approx(values[:4], rel=1e-9, abs=1e-9 * abs(reward.const))
    assert len({s.architecture for s in found}) == len(found)


def _within(space: SearchSpace, arch: Architecture, limits: list[Limit]) -> bool:
    return all(low - 1e-9 * abs(low) <= t(space, [arch])[0] <= high + 1e-9 * abs(high) for t, low, high in limits)


@settings(max_examples=40, deadline=None)
@given(
    forests(), st.integers(0, 10**6), st.sampled_from(["unary", "ratio", "pair"]), st.sampled_from(["unary", "ratio"])
)
def test_the_front_is_what_nothing_dominates(space: Forest, seed: int, form: str, of: str) -> None:
    rng = np.random.default_rng(seed)
    reward, cost = polynomial(space, rng, form), polynomial(space, rng, of)
    archs = list(space.enumerate())
    values, costs = reward(space, archs), cost(space, archs)
    best: list[tuple[float, float]] = []
    for k in np.lexsort((-values, costs)):
        if not best or values[k] > best[-1][0] + 1e-9:
            best.append((values[k], costs[k]))
    found = [(s.value, float(cost(space, [s.architecture])[0])) for s in front(space, reward, cost) if s.architecture]
    assert np.array(found[::-1]) == pytest.approx(np.array(best))


def test_a_front_ends_where_costs_do_and_leaves_out_what_is_forbidden() -> None:
    space = Grid(2, 3)
    cost = Terms(0.0, (np.array([0.0, 1.0, 2.0]),) * 2)
    reward = [np.array([0.0, 1.0, -np.inf]), np.array([0.0, 3.0, 5.0])]
    found = [(s.value, s.architecture) for s in front(space, reward, cost)]
    assert found == [(6.0, (1, 2)), (5.0, (0, 2)), (3.0, (0, 1)), (0.0, (0, 0))]


@settings(max_examples=60, deadline=None)
@given(forests(), st.integers(0, 10**6))
def test_what_is_dominated_is_never_needed(space: Forest, seed: int) -> None:
    rng = np.random.default_rng(seed)
    reward, cost = polynomial(space, rng, "pair"), polynomial(space, rng, "unary")
    limit = float(np.median(cost(space, list(space.enumerate()))))
    never = dominated(space, reward, [(cost, -math.inf, limit - cost.const, 0.0)])
    kept = {i: np.flatnonzero(~n).tolist() for i, n in enumerate(never)}
    assert all(kept.values())
    whole, window = enumerated(space, reward, [(cost, -math.inf, limit)]), space.restrict(kept)
    few = [window.lift(a) for a in window.enumerate()]
    assert whole.value == pytest.approx(
        max(v for v, c in zip(reward(space, few), cost(space, few)) if c <= limit + 1e-9)
    )


# ---------------------------------------------------------------------- the published program


def charnes_cooper(
    loss: list[F], macs: list[F], fixed: float, caps: list[tuple[list[F], float]], *, normalised: bool = True
) -> float | None:
    """min sum b / (F0 + sum F) as the paper's linear program of t = z x, completed and scaled (ALGORITHMS 1.6)."""
    mean = fixed + sum(float(f.mean()) for f in macs)
    macs, fixed = [f / mean for f in macs], fixed / mean
    sizes = [len(b) for b in loss]
    n, offsets = sum(sizes), np.cumsum([0, *sizes])
    least, most = fixed + sum(f.min() for f in macs), fixed + sum(f.max() for f in macs)
    rows: list[tuple[F, float, float]] = []

    def row(t: F | None = None, y: F | None = None, z: float = 0.0, low: float = -np.inf, high: float = np.inf) -> None:
        t, y = (np.zeros(n) if x is None else x for x in (t, y))
        rows.append((np.concatenate([t, y, [z]]), low, high))

    if normalised:
        row(t=np.concatenate(macs), z=fixed, low=1, high=1)
    for i in range(len(sizes)):
        of = np.zeros(n)
        of[offsets[i] : offsets[i + 1]] = 1
        row(t=of, z=-1.0, low=0, high=0)
        row(y=of, low=1, high=1)
    for j in range(n):
        one = np.eye(n)[j]
        row(t=one, y=-one / least, high=0)
        row(t=one, y=-one / least, z=-1.0, low=-1 / least)
    for cost, limit in caps:
        row(t=np.concatenate(cost), z=-limit, high=0)
    matrix, low, high = (np.array(x) for x in zip(*rows))
    found = milp(
        np.concatenate([*loss, np.zeros(n + 1)]),
        constraints=LinearConstraint(matrix, low, high),
        integrality=np.concatenate([np.zeros(n), np.ones(n), [0]]),
        bounds=Bounds(
            np.zeros(2 * n + 1),
            np.concatenate([np.full(2 * n, np.inf), [np.inf]])
            if not normalised
            else np.concatenate([np.full(n, np.inf), np.ones(n), [1 / least]]),
        ),
        options={"mip_rel_gap": 0.0},
    )
    assert normalised is False or found.status in (0, 2), (least, most)
    return None if found.x is None else float(found.fun) / mean


@pytest.mark.parametrize("unit", [1.0, 1e6], ids=["MMACs", "raw MACs"])
def test_dinkelbach_equals_the_completed_published_program(unit: float) -> None:
    for seed in range(30):
        rng = np.random.default_rng(seed)
        space = Grid(int(rng.integers(2, 5)), int(rng.integers(2, 5)))
        loss = [rng.uniform(0, 2, len(s)) for s in space.slots]
        macs = [unit * rng.uniform(5, 60, len(s)) for s in space.slots]
        cost = [rng.uniform(1, 9, len(s)) for s in space.slots]
        limit = float(sum(c.min() for c in cost) + rng.uniform(-0.2, 1) * sum(np.ptp(c) for c in cost))
        fixed = unit * 10.0
        reward = Terms(0.0, tuple(-b for b in loss), over=Terms(fixed, tuple(macs)))
        found = maximise(space, reward, [(Terms(0.0, tuple(cost)), -math.inf, limit)])
        other = charnes_cooper(loss, macs, fixed, [(cost, limit)])
        assert (found.architecture is None) == (other is None)
        if other is not None:
            assert -found.value * unit == pytest.approx(other * unit, rel=1e-6)


def test_without_its_normalisation_the_published_program_is_wrong() -> None:
    """ALGORITHMS 12.1 d: blocks of loss 0 and 1; a limit leaves the second, whose ratio is 1.5 / 7.5."""
    loss, macs, caps = [np.array([0.0, 1.0])], [np.array([10.0, 5.0])], [([np.array([2.0, 1.0])], 1.0)]
    right = charnes_cooper(loss, macs, 0.0, caps)
    wrong = charnes_cooper(loss, macs, 0.0, caps, normalised=False)
    assert right is not None
    assert 7.5 * right == pytest.approx(1.5)
    assert wrong is not None
    assert 7.5 * wrong < 1.5 - 1e-3
    free = maximise(Grid(1, 2), Terms(0.0, (-loss[0],), over=Terms(0.0, (macs[0],))))
    assert free.architecture == (0,)


def test_the_ragged_space_has_a_front_of_depths() -> None:
    space = Ragged()
    reward, cost = (
        polynomial(space, np.random.default_rng(3), "unary"),
        polynomial(space, np.random.default_rng(4), "unary"),
    )
    costs = [float(cost(space, [s.architecture])[0]) for s in front(space, reward, cost) if s.architecture]
    assert costs == sorted(costs, reverse=True)
