"""Exact choices: the integer program against brute force, ranges, and landing."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sartor.choose.solve import check_reachable, land, maximise, reachable
from sartor.core import Budget, F, Landed, Score, SearchSpace, Terms, TermScore, Unreachable, UserError
from sartor.predictors.mlp import MLP
from tests.fakes import LATENCY, Curved, Forest, Grid, Ragged, additive, pairwise, ratio
from tests.test_core_spaces import forests

COSTS = {"unary": additive, "pairwise": pairwise, "ratio": ratio}


def chances(space: SearchSpace, rng: np.random.Generator, sharp: float = 1.0) -> list[F]:
    logits = [rng.normal(0, sharp, len(s)) for s in space.slots]
    return [a - np.log(np.exp(a).sum()) for a in logits]


class Network(Score):
    """A cost as an MLP gives: additive, bent by ReLU units of every slot."""

    def __init__(self, space: SearchSpace, seed: int, bend: float = 0.3) -> None:
        rng = np.random.default_rng(seed)
        self.space, self.metric, self._plain = space, LATENCY, additive(space, seed)
        self._into, self._out = rng.normal(size=(space.offsets[-1], 64)), rng.normal(size=64) * bend / 8

    def __call__(self, archs: Sequence[Sequence[int]]) -> F:
        rows = self.space.one_hot(archs)
        return np.asarray(20 + self._plain(archs) + np.maximum(rows @ self._into, 0) @ self._out)


# ---------------------------------------------------------------------- the program


@pytest.mark.parametrize("reward_form", COSTS)
@pytest.mark.parametrize("cost_form", COSTS)
def test_the_program_equals_brute_force(cost_form: str, reward_form: str) -> None:
    window = Ragged().restrict({0: [0, 2], 2: [1, 3]})
    for n in range(24):
        rng = np.random.default_rng(n)
        space = (Ragged(), window, Grid(4, 3), Grid(5, 2))[n % 4]
        archs = list(space.enumerate())
        cost = COSTS[cost_form](space, n)
        reward = Terms(0.0, tuple(chances(space, rng)))
        if reward_form != "unary":
            reward = COSTS[reward_form](space, n + 50).terms()
        costs, rewards = cost(archs), reward(space, archs)
        high = rng.uniform(costs.min() * 0.98, costs.max() * 1.02)
        low = high * rng.choice([0.9, 0.98, 0.995])
        good = (costs >= low) & (costs <= high)
        exclude = [archs[int(np.argmax(np.where(good, rewards, -np.inf)))]] if n % 3 == 0 and good.any() else []
        for arch in exclude:
            good[archs.index(arch)] = False
        found = maximise(space, reward, [(cost.terms(), low, high)], exclude=exclude)
        if not good.any():
            assert (found.architecture, found.status) == (None, "infeasible")
            continue
        assert found.architecture is not None
        assert found.status == "optimal"
        assert found.gap == 0.0
        assert good[archs.index(found.architecture)]
        assert found.value == pytest.approx(rewards[good].max(), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(forests(), st.integers(0, 999))
def test_any_forest_of_slots_with_two_limits(space: Forest, seed: int) -> None:
    rng = np.random.default_rng(seed)
    archs, reward = list(space.enumerate()), chances(space, rng)
    one, two = additive(space, seed), pairwise(space, seed + 1)
    limits = [(one.terms(), -np.inf, float(np.median(one(archs)))), (two.terms(), float(np.median(two(archs))), np.inf)]
    good = (one(archs) <= limits[0][2] * (1 + 1e-12)) & (two(archs) >= limits[1][1] * (1 - 1e-12))
    found = maximise(space, reward, limits)
    values = Terms(0.0, tuple(reward))(space, archs)
    assert (found.architecture is not None) == good.any()
    if good.any():
        assert found.value == pytest.approx(values[good].max(), abs=1e-9)


def test_forbidden_candidates_and_bad_rewards() -> None:
    space = Grid(3, 3)
    reward = [np.array([0.0, -np.inf, -5.0]) for _ in range(3)]
    cost = TermScore(space, LATENCY, Terms(0.0, (np.array([1.0, 2.0, 3.0]),) * 3))
    assert maximise(space, reward, [(cost.terms(), 4.0, np.inf)]).architecture in {(0, 0, 2), (0, 2, 0), (2, 0, 0)}
    assert maximise(space, [np.full(3, -np.inf)] * 3).status == "infeasible"
    with pytest.raises(ValueError, match="numbers"):
        maximise(space, [np.full(3, np.nan)] * 3)


def test_a_space_without_choices() -> None:
    space = Grid(0, 1)
    cost = TermScore(space, LATENCY, Terms(5.0, ()))
    assert maximise(space, [], [(cost.terms(), 4.0, 5.0)]).architecture == ()
    assert maximise(space, [], [(cost.terms(), 6.0, 7.0)]).status == "infeasible"
    assert reachable(space, cost) == (5.0, 5.0)
    found = land(space, [], [Budget(cost, 5.0)], (), rng=np.random.default_rng(0))
    assert (found.architecture, found.status) == ((), "optimal")


def test_a_program_out_of_time_says_so() -> None:
    space = Grid(40, 8)
    reward = [*chances(space, np.random.default_rng(0))]
    limit = float(np.mean(pairwise(space)(space.sample(np.random.default_rng(0), 50))))
    found = maximise(space, reward, [(pairwise(space).terms(), limit * 0.9999, limit)], seconds=0.05)
    assert found.status in {"feasible", "unknown"}
    assert found.gap > 0


def test_the_solver_prints_nothing_to_stdout() -> None:
    code = (
        "import os\nfrom sartor.choose.program import quiet_stdout\n"
        "print('before')\nwith quiet_stdout():\n os.write(1, b'noise\\n'); os.system('echo noise')\nprint('after')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "before\nafter\n"
    assert done.stderr.count("noise") == 2


# ---------------------------------------------------------------------- what can be reached


@pytest.mark.parametrize("make", [additive, pairwise, ratio, Curved])
@pytest.mark.parametrize("space", [Ragged(), Grid(5, 3), Ragged().restrict({0: [2]})], ids=["ragged", "grid", "window"])
def test_the_range_is_exact(space: SearchSpace, make) -> None:  # type: ignore[no-untyped-def]
    score = make(space)
    values = score(list(space.enumerate()))
    assert reachable(space, score) == pytest.approx((values.min(), values.max()))


def test_without_terms_local_search_comes_close_from_inside() -> None:
    for seed in range(5):
        space = (Grid(6, 4), Ragged())[seed % 2]
        score = Network(space, seed)
        values = score(list(space.enumerate()))
        low, high = reachable(space, score, enumerate_below=0)
        slack = 0.02 * (values.max() - values.min())
        assert values.min() - 1e-9 <= low <= values.min() + slack
        assert values.max() - slack <= high <= values.max() + 1e-9


def test_budgets_out_of_reach_are_refused_with_the_range() -> None:
    space = Grid(4, 3)
    cost = additive(space)
    low, high = reachable(space, cost)
    assert check_reachable(space, [Budget(cost, (low + high) / 2)]) == [pytest.approx((low, high))]
    check_reachable(space, [Budget(cost, low), Budget(cost, high * 9)])
    for budgets in ([(low * 0.9, "at_most")], [(high * 1.1, "at_most")], [(high * 1.1, "at")], [(low * 0.9, "at")]):
        with pytest.raises(Unreachable, match=f"{low:.4g} ms to {high:.4g} ms") as caught:
            check_reachable(space, [Budget(cost, limit, sense) for limit, sense in budgets])  # type: ignore[arg-type]
        assert caught.value.exit_code == 3
        assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------- landing


def expected(space: SearchSpace, log_p: Sequence[F], budgets: Sequence[Budget]) -> float | None:
    """The largest log probability that lands, by looking at everything."""
    archs = list(space.enumerate())
    costs = np.stack([b.score(archs) for b in budgets], axis=1)
    at = [i for i, b in enumerate(budgets) if b.sense == "at"]
    good = [
        all(b.feasible(c) for b, c in zip(budgets, row))
        and (all(budgets[i].lands(row[i]) for i in at) if at else any(b.lands(c) for b, c in zip(budgets, row)))
        for row in costs
    ]
    values = Terms(0.0, tuple(log_p))(space, archs)
    return float(values[good].max()) if any(good) else None


def check_landed(space: SearchSpace, log_p: Sequence[F], budgets: Sequence[Budget], found: Landed) -> float:
    """Honest about what it is; returns the log probability."""
    costs = [float(b.score([found.architecture])[0]) for b in budgets]
    assert found.predicted[LATENCY.name] in costs
    lands = [b.lands(c) for b, c in zip(budgets, costs)]
    assert (found.status == "none_found") == (not any(lands)) or len(budgets) > 1
    if found.status != "none_found":
        assert all(b.feasible(c) for b, c in zip(budgets, costs))
        assert any(lands)
    return float(Terms(0.0, tuple(log_p))(space, [found.architecture])[0])


@pytest.mark.parametrize("form", COSTS)
@pytest.mark.parametrize("form_of_budgets", ["at_most", "at", "two", "at and at_most"])
def test_landing_equals_brute_force(form: str, form_of_budgets: str) -> None:
    for n in range(25):
        rng = np.random.default_rng(n)
        space = (Ragged(), Grid(5, 3))[n % 2]
        one, two = COSTS[form](space, n), COSTS["unary"](space, n + 99)
        log_p, archs = chances(space, rng, sharp=3.0), space.sample(rng, 30)
        kinds = {
            "at_most": [(one, "at_most")],
            "at": [(one, "at")],
            "two": [(one, "at_most"), (two, "at_most")],
            "at and at_most": [(two, "at_most"), (one, "at")],
        }[form_of_budgets]
        budgets = [
            Budget(s, float(rng.choice(s(archs))) * rng.uniform(0.98, 1.02), sense, 0.02)  # type: ignore[arg-type]
            for s, sense in kinds
        ]
        found = land(space, log_p, budgets, archs[0], rng=rng)
        best, value = expected(space, log_p, budgets), check_landed(space, log_p, budgets, found)
        assert found.status == ("optimal" if best is not None else "none_found")
        if best is not None:
            assert value == pytest.approx(best, abs=1e-9)


def test_where_nothing_lands_the_closest_below_is_returned() -> None:
    space = Grid(2, 2)
    cost = TermScore(space, LATENCY, Terms(10.0, (np.array([0.0, 5.0]), np.array([0.0, 20.0]))))
    found = land(space, [np.zeros(2)] * 2, [Budget(cost, 20.0)], (1, 1), rng=np.random.default_rng(0))
    assert found == Landed((1, 0), {"latency_ms": 15.0}, "none_found")
    found = land(space, [np.zeros(2)] * 2, [Budget(cost, 5.0)], (1, 1), rng=np.random.default_rng(0))
    assert (found.architecture, found.status) == ((1, 1), "none_found")


@pytest.mark.parametrize("make", [Network, Curved], ids=["network", "curved"])
def test_without_terms_what_is_found_lands_and_is_nearly_the_best(make) -> None:  # type: ignore[no-untyped-def]
    possible, losses = 0, []
    for n in range(20):
        rng = np.random.default_rng(n)
        space = Grid(5, 4) if n % 4 else Ragged()
        cost, log_p = make(space, n), chances(space, rng)
        costs = cost(list(space.enumerate()))
        budgets = [Budget(cost, rng.uniform(costs.min(), costs.max()), "at" if n % 3 == 0 else "at_most")]
        best = expected(space, log_p, budgets)
        start = space.sample(rng, 1)[0]
        whole = land(space, log_p, budgets, start, rng=rng)
        assert whole.status == ("none_found" if best is None else "optimal"), "small spaces are enumerated"
        found = land(space, log_p, budgets, start, rng=rng, enumerate_below=0)
        value = check_landed(space, log_p, budgets, found)
        if best is None:
            assert found.status == "none_found"
            continue
        possible += 1
        if found.status == "verified":
            losses.append(best - value)
    assert possible >= 10
    assert len(losses) >= 0.95 * possible
    assert np.median(losses) <= 1e-9
    assert np.mean(losses) <= 1.0


@pytest.mark.parametrize("sharp", [0.01, 1.0, 8.0])
def test_landing_is_quick_at_full_size(sharp: float) -> None:
    space, rng = Grid(21, 7), np.random.default_rng(0)
    log_p = chances(space, rng, sharp)
    start = tuple(int(np.argmax(p)) for p in log_p)
    cost = additive(space)
    low, high = reachable(space, cost)
    began = time.perf_counter()
    for share in (0.2, 0.5, 0.8):
        budget = Budget(cost, low + share * (high - low))
        found = land(space, log_p, [budget], start, rng=rng)
        assert found.status == "optimal"
        assert budget.lands(cost([found.architecture])[0])
    assert time.perf_counter() - began < 3 * 2.0


def test_landing_on_a_fitted_mlp_at_full_size() -> None:
    space, rng = Grid(21, 7), np.random.default_rng(0)
    archs = space.sample(rng, 600)
    mlp = MLP(hidden=(64, 32), epochs=30).fit(space, archs, Network(space, 0)(archs), metric=LATENCY)
    log_p = chances(space, rng)
    budget = Budget(mlp, float(np.quantile(mlp(archs), 0.3)))
    began = time.perf_counter()
    found = land(space, log_p, [budget], tuple(int(np.argmax(p)) for p in log_p), rng=np.random.default_rng(1))
    assert time.perf_counter() - began < 10.0
    assert found.status == "verified"
    value = check_landed(space, log_p, [budget], found)
    # the program on ridge-like costs is a bound one can come close to
    assert value > Terms(0.0, tuple(log_p))(space, archs).max()
    again = land(space, log_p, [budget], tuple(int(np.argmax(p)) for p in log_p), rng=np.random.default_rng(1))
    assert again == found


def test_landing_refuses_what_makes_no_sense() -> None:
    space = Grid(2, 2)
    with pytest.raises(UserError, match="budget"):
        land(space, [np.zeros(2)] * 2, [], (0, 0), rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="log_probability"):
        land(space, [np.zeros(3)] * 2, [Budget(additive(space), 2.0)], (0, 0), rng=np.random.default_rng(0))


def test_probabilities_that_underflowed_are_small_not_impossible() -> None:
    space = Grid(3, 2)
    cost = TermScore(space, LATENCY, Terms(0.0, (np.array([1.0, 2.0]),) * 3))
    log_p = [np.array([0.0, -np.inf])] * 3
    found = land(space, log_p, [Budget(cost, 4.0)], (0, 0, 0), rng=np.random.default_rng(0))
    assert found.status == "optimal"
    assert sum(found.architecture) == 1
