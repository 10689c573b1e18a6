"""Choosing by gradient: samples follow P, gates carry gradients, budgets are held exactly and nothing else moves."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import chi2
from torch import Tensor

from sartor.choose.relax import Multipliers, Relaxation, aims_of, balance, hold, soft, spread
from sartor.core import Budget, F, SearchSpace, Slot, Terms, TermScore, metric
from tests.fakes import Forest, Grid, Ragged, additive, pairwise

LATENCY, ENERGY = metric("latency_ms"), metric("energy_mj")


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def relaxed(space: SearchSpace, logits: Sequence[Sequence[float]]) -> Relaxation:
    relaxation = Relaxation(space, stream())
    with torch.no_grad():
        for row, values in zip(relaxation.logits, logits):
            row[: len(values)] = torch.tensor(values)
    return relaxation


def row_of(*logits: float) -> Relaxation:
    return relaxed(Grid(1, len(logits)), [logits])


def chi_square(counts: F, chances: F) -> float:
    expected = counts.sum() * chances
    return float((((counts - expected) ** 2) / expected).sum())


# ---------------------------------------------------------------------- Gumbel samples


@pytest.mark.parametrize("temperature", [5.0, 0.1])
def test_samples_follow_the_softmax_at_every_temperature(temperature: float) -> None:
    relaxation, draws = row_of(2.0, 0.0, -2.0), stream(3)
    with torch.no_grad():
        picks = [relaxation.sample(temperature, draws).index[0] for _ in range(4000)]
    counts = np.bincount(picks, minlength=3).astype(float)
    chances = torch.softmax(torch.tensor([2.0, 0.0, -2.0]), 0).double().numpy()
    assert chi_square(counts, chances) < chi2.ppf(0.999, 2)


def test_noise_on_p_as_misprinted_samples_something_else() -> None:
    chances = torch.softmax(torch.tensor([2.0, 0.0, -2.0]), 0)
    noise = -torch.empty(4000, 3).exponential_(generator=stream(3)).log()
    printed = torch.bincount((chances + noise).argmax(1), minlength=3).double().numpy()
    assert chi_square(printed, chances.double().numpy()) > 100 * chi2.ppf(0.999, 2)
    np.testing.assert_allclose(printed / 4000, [0.52, 0.25, 0.23], atol=0.03)


def test_gates_are_one_hot_in_value_and_route_by_index() -> None:
    relaxation, draws = Relaxation(Ragged(), stream(), init_std=2.0), stream(1)
    for temperature in (5.0, 0.5, 1e-3):
        path = relaxation.sample(temperature, draws)
        assert path.gates is not None
        assert [len(g) for g in path.gates] == [3, 3, 4, 2, 2]
        on = relaxation.space.active(path.index)
        for gate, k, exists in zip(path.gates, path.index, on):
            hard = int(gate.detach().argmax())
            torch.testing.assert_close(gate.detach(), torch.eye(len(gate))[hard], atol=1e-6, rtol=0)
            assert k == (hard if exists else 0)


def gradient(relaxation: Relaxation, value: Tensor) -> Tensor:
    return torch.autograd.grad(value, relaxation.logits, allow_unused=True)[0]


def test_gradients_of_logits_sum_to_zero_in_every_slot() -> None:
    relaxation = Relaxation(Grid(5, 4), stream(), init_std=1.0)
    path = relaxation.sample(1.0, stream(2))
    assert path.gates is not None
    weights = torch.randn(5, 4, generator=stream(3))
    slope = gradient(relaxation, sum((g @ w for g, w in zip(path.gates, weights)), torch.zeros(())))
    assert slope.abs().max() > 1e-3
    torch.testing.assert_close(slope.sum(1), torch.zeros(5), atol=1e-6, rtol=0)


def test_gradients_are_those_of_the_soft_sample_at_the_same_noise() -> None:
    relaxation, tau, weights = row_of(0.5, -0.3, 1.2), 0.7, torch.tensor([1.0, -2.0, 0.5])
    path = relaxation.sample(tau, stream(9))
    assert path.gates is not None
    noise = -torch.empty(1, 3).exponential_(generator=stream(9)).log()

    def surrogate(logits: Tensor) -> Tensor:
        return torch.softmax((torch.log_softmax(logits, 0) + noise[0]) / tau, 0) @ weights

    steps = 1e-3 * torch.eye(3)
    at = torch.tensor([0.5, -0.3, 1.2])
    finite = torch.stack([(surrogate(at + h) - surrogate(at - h)) / 2e-3 for h in steps])
    torch.testing.assert_close(gradient(relaxation, path.gates[0] @ weights)[0], finite, atol=1e-3, rtol=1e-2)


# ---------------------------------------------------------------------- ordered samples


def test_ordered_paths_take_every_candidate_of_every_slot_once() -> None:
    relaxation, draws = Relaxation(Grid(6, 7), stream(), init_std=2.0), stream(5)
    for _ in range(20):
        paths = relaxation.ordered(1.0, draws)
        assert len(paths) == 7
        for picks in zip(*(path.index for path in paths)):
            assert sorted(picks) == list(range(7))


def test_orders_are_as_frequent_as_plackett_luce_says() -> None:
    relaxation, draws, n = row_of(0.5, -0.3, 1.2), stream(11), 4000
    wanted = {
        (0, 1, 2): 0.0527,
        (0, 2, 1): 0.2361,
        (1, 0, 2): 0.0431,
        (1, 2, 0): 0.0867,
        (2, 0, 1): 0.4012,
        (2, 1, 0): 0.1803,
    }
    with torch.no_grad():
        found = Counter(tuple(p.index[0] for p in relaxation.ordered(0.8, draws)) for _ in range(n))
    chances = np.array(list(wanted.values()))
    counts = np.array([found[order] for order in wanted], dtype=float)
    assert counts.sum() == n
    assert chi_square(counts, chances / chances.sum()) < chi2.ppf(0.999, 5)


def test_a_slot_with_fewer_candidates_starts_over_when_all_are_used() -> None:
    sizes = (2, 5, 3)
    space = Forest([Slot(f"s{i}", tuple(map(str, range(n)))) for i, n in enumerate(sizes)])
    relaxation, draws = Relaxation(space, stream(), init_std=1.0), stream(2)
    for _ in range(50):
        paths = relaxation.ordered(1.0, draws)
        assert len(paths) == 5
        for size, picks in zip(sizes, zip(*(path.index for path in paths))):
            assert max(picks) < size
            for start in range(0, 5, size):
                part = picks[start : start + size]
                assert len(set(part)) == len(part), "no candidate comes twice before all came once"


def test_the_last_path_has_no_say_in_the_logits() -> None:
    relaxation = Relaxation(Grid(4, 3), stream(), init_std=1.0)
    paths = relaxation.ordered(0.5, stream(4))
    sizes = []
    for path in paths:
        assert path.gates is not None
        weights = torch.randn(4, 3, generator=stream(7))
        value = sum((g @ w for g, w in zip(path.gates, weights)), torch.zeros(()))
        sizes.append(float(torch.autograd.grad(value, relaxation.logits, retain_graph=True)[0].abs().max()))
    assert sizes[-1] == 0.0
    assert min(sizes[:-1]) > 1e-4


def test_extreme_logits_and_temperatures_stay_finite() -> None:
    relaxation = relaxed(Grid(3, 3), [[80, -80, 0], [-80, -80, 80], [80, 80, -80]])
    for temperature in (1e-3, 5.0):
        for path in (*relaxation.ordered(temperature, stream(1)), relaxation.sample(temperature, stream(1))):
            assert path.gates is not None
            value = sum((g @ torch.arange(3.0) for g in path.gates), torch.zeros(()))
            slope = torch.autograd.grad(value, relaxation.logits, retain_graph=True)[0]
            assert torch.isfinite(value)
            assert torch.isfinite(slope).all()
    budget = Budget(additive(relaxation.space), 4.0)
    held(relaxation, [budget])
    assert torch.isfinite(relaxation.logits).all()
    assert torch.isfinite(spread(relaxation, [budget]))


# ---------------------------------------------------------------------- holding a budget


def expected(relaxation: Relaxation, budget: Budget) -> float:
    with torch.no_grad():
        return float(soft(budget).soft(relaxation.probabilities()))


def aim(budget: Budget) -> float:
    return sum(budget.interval) / 2


def held(relaxation: Relaxation, budgets: Sequence[Budget]) -> None:
    """`hold` at the aims of budgets well inside their ranges."""
    hold(relaxation, budgets, [aim(b) for b in budgets])


def between(score: TermScore, share: float) -> float:
    low, high = (score.terms().const + sum(f(u) for u in score.terms().unary) for f in (np.min, np.max))
    return float(low + share * (high - low))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    share=st.floats(0.05, 0.95),
    spread_of_logits=st.floats(0.0, 3.0),
    sizes=st.lists(st.integers(2, 6), min_size=2, max_size=12),
    sharpness=st.sampled_from([1.0, 3.0, 8.0]),
)
@example(seed=1511, share=0.125, spread_of_logits=3.0, sizes=[2, 4], sharpness=8.0)  # all but decided
def test_hold_makes_the_expected_cost_the_aim(
    seed: int, share: float, spread_of_logits: float, sizes: list[int], sharpness: float
) -> None:
    space = Forest([Slot(f"s{i}", tuple(map(str, range(n)))) for i, n in enumerate(sizes)])
    relaxation = Relaxation(space, stream(seed), init_std=spread_of_logits)
    relaxation.sharpness.fill_(sharpness)
    score = additive(space, seed)
    budget = Budget(score, between(score, share))
    held(relaxation, [budget])
    assert expected(relaxation, budget) == pytest.approx(aim(budget), rel=1e-3)


def test_hold_on_a_cost_with_pairs_relinearises_until_it_meets_the_aim() -> None:
    space = Grid(8, 4)
    for seed in range(5):
        relaxation, score = Relaxation(space, stream(seed), init_std=1.0), pairwise(space, seed)
        budget = Budget(score, 0.85 * expected(relaxation, Budget(score, 1.0)))
        held(relaxation, [budget])
        assert expected(relaxation, budget) == pytest.approx(aim(budget), rel=5e-3)


def relative_entropy(new: Sequence[F], old: Sequence[F]) -> float:
    return float(sum((np.exp(a) * (a - b)).sum() for a, b in zip(new, old)))


def test_hold_moves_logits_in_proportion_to_cost_which_is_the_nearest_distribution() -> None:
    space = Grid(5, 4)
    relaxation, score = Relaxation(space, stream(1), init_std=1.0), additive(space, 3)
    before = relaxation.log_probabilities()
    moved = relaxation.logits.detach().clone()
    budget = Budget(score, between(score, 0.3))
    held(relaxation, [budget])
    after = relaxation.log_probabilities()
    costs = score.terms().unary
    moved = relaxation.logits.detach() - moved
    rates = [np.polyfit(c, m.double().numpy(), 1) for c, m in zip(costs, moved)]
    slopes = [rate[0] for rate in rates]
    np.testing.assert_allclose(slopes, slopes[0], rtol=1e-3)
    for c, m, rate in zip(costs, moved, rates):  # the KKT conditions: logits change by x times cost, one x for all
        np.testing.assert_allclose(np.polyval(rate, c), m.double().numpy(), atol=1e-4)

    # and no distribution beside it on the same constraint is nearer to where P was
    rng, best = np.random.default_rng(0), relative_entropy(after, before)
    chances = [np.exp(a) for a in after]
    for _ in range(200):
        direction = [p * rng.normal(size=p.size) for p in chances]
        direction = [d - p * d.sum() for d, p in zip(direction, chances)]
        tilt = [p * (c - p @ c) for p, c in zip(chances, costs)]
        scale = sum(d @ c for d, c in zip(direction, costs)) / sum(t @ c for t, c in zip(tilt, costs))
        other = [p + 0.1 * (d - scale * t) for p, d, t in zip(chances, direction, tilt)]
        if min(float(o.min()) for o in other) > 0:
            np.testing.assert_allclose(sum((o - p) @ c for o, p, c in zip(other, chances, costs)), 0, atol=1e-9)
            assert relative_entropy([np.log(o) for o in other], before) >= best - 1e-6


def two_budgets(space: SearchSpace, first: float, second: float) -> tuple[Budget, Budget]:
    latency, energy = additive(space, 1), TermScore(space, ENERGY, additive(space, 2).terms())
    return Budget(latency, between(latency, first)), Budget(energy, between(energy, second))


def test_of_several_budgets_slack_ones_are_left_alone() -> None:
    space = Grid(8, 5)
    relaxation = Relaxation(space, stream(4), init_std=0.5)
    tight, slack = two_budgets(space, 0.25, 0.95)
    alone = Relaxation(space, stream(4), init_std=0.5)
    held(alone, [tight])
    held(relaxation, [tight, slack])
    assert expected(relaxation, tight) == pytest.approx(aim(tight), rel=2e-3)
    assert expected(relaxation, slack) < slack.limit
    torch.testing.assert_close(relaxation.log_p(), alone.log_p(), atol=5e-3, rtol=0)


def test_several_slack_budgets_move_nothing() -> None:
    relaxation = Relaxation(Grid(8, 5), stream(4), init_std=0.5)
    before = relaxation.logits.detach().clone()
    held(relaxation, two_budgets(relaxation.space, 0.9, 0.95))
    assert torch.equal(relaxation.logits, before)


def test_two_binding_budgets_are_both_met() -> None:
    relaxation = Relaxation(Grid(12, 5), stream(4), init_std=0.5)
    both = two_budgets(relaxation.space, 0.3, 0.3)
    held(relaxation, both)
    for budget in both:
        assert expected(relaxation, budget) <= aim(budget) * 1.002
    assert any(expected(relaxation, b) == pytest.approx(aim(b), rel=2e-3) for b in both)


def binding(relaxation: Relaxation, n: int) -> list[Budget]:
    """Budgets whose limits the expected costs have just reached."""
    budgets = two_budgets(relaxation.space, 0.4, 0.4)[:n]
    return [Budget(b.score, expected(relaxation, b)) for b in budgets]


@pytest.mark.parametrize("n", [1, 2])
def test_balance_leaves_the_first_order_change_of_every_cost_zero(n: int) -> None:
    relaxation = Relaxation(Grid(6, 4), stream(6), init_std=1.0)
    budgets = binding(relaxation, n)
    slopes = [gradient(relaxation, soft(b).soft(relaxation.probabilities()) / b.limit) for b in budgets]
    wish = torch.randn(relaxation.logits.shape, generator=stream(8)) * 0.1
    # a loss that falls as costs rise, so that every budget has to push back
    relaxation.logits.grad = wish - sum((3.0 * s for s in slopes), torch.zeros(()))
    values = balance(relaxation, budgets, [aim(b) for b in budgets])
    assert len(values) == n
    assert min(values) > 0
    assert relaxation.logits.grad is not None
    for slope in slopes:
        change = float((relaxation.logits.grad * slope).sum() / slope.norm() / relaxation.logits.grad.norm())
        assert abs(change) < 1e-4


def test_balance_never_lets_one_of_several_budgets_push_costs_up() -> None:
    relaxation = Relaxation(Grid(6, 4), stream(6), init_std=1.0)
    budgets = binding(relaxation, 2)
    slope = gradient(relaxation, soft(budgets[0]).soft(relaxation.probabilities()))
    relaxation.logits.grad = slope.clone()  # the loss itself wants the first cost lower
    assert balance(relaxation, budgets, [aim(b) for b in budgets])[0] == pytest.approx(0.0, abs=1e-6)
    slack = [Budget(budgets[0].score, 2 * budgets[0].limit), budgets[1]]
    relaxation.logits.grad = -slope.clone()
    assert balance(relaxation, slack, [aim(b) for b in slack])[0] == 0.0


def test_aims_lie_in_the_interval_but_never_at_an_end_of_the_range() -> None:
    score = additive(Grid(3, 3))
    inside, lowest, highest = (Budget(score, limit) for limit in (5.0, 2.0, 8.0))
    assert inside.lands(aims_of([inside], [(2.0, 8.0)])[0])
    assert 2.0 < aims_of([lowest], [(2.0, 8.0)])[0] < 2.01
    assert 7.9 < aims_of([highest], [(2.0, 7.95)])[0] < 7.95


def test_spread_is_the_standard_deviation_of_the_cost_of_a_sample() -> None:
    space = Grid(4, 3)
    relaxation, score = Relaxation(space, stream(2), init_std=1.0), additive(space, 5)
    chances = [np.exp(a) for a in relaxation.log_probabilities()]
    archs = list(space.enumerate())
    weights = np.array([np.prod([p[k] for p, k in zip(chances, a)]) for a in archs])
    costs = score(archs)
    deviation = np.sqrt(weights @ costs**2 - (weights @ costs) ** 2)
    assert float(spread(relaxation, [Budget(score, 2.0)]).detach()) == pytest.approx(deviation / 2.0, rel=1e-4)


# ---------------------------------------------------------------------- the published controller


def test_a_multiplier_rises_exactly_when_its_cost_is_above_the_limit() -> None:
    space = Grid(3, 3)
    score = TermScore(space, LATENCY, Terms(1.0, (np.array([0.0, 1.0, 2.0]),) * 3))
    multipliers = Multipliers([Budget(score, 4.0), Budget(score, 2.0)], rate=0.5)
    multipliers.update((1, 1, 1))  # costs 4: at the first limit, twice the second
    assert multipliers.values == [0.0, 0.5]
    multipliers.update((2, 2, 2))
    assert multipliers.values == pytest.approx([0.375, 0.5 + 1.25])
    multipliers.update((0, 0, 0))
    assert multipliers.values == pytest.approx([0.0, 1.5])
    again = Multipliers(multipliers.budgets, rate=0.5)
    again.load_state_dict(multipliers.state_dict())
    assert again.values == multipliers.values


def test_sign_clip_drops_a_multiplier_that_pushes_away_from_the_limit() -> None:
    space = Grid(3, 3)
    score = TermScore(space, LATENCY, Terms(1.0, (np.array([0.0, 1.0, 2.0]),) * 3))
    for clip, values in ((False, [-0.375, -0.125, 0.25]), (True, [-0.375, 0.0, 0.375])):
        multipliers, seen = Multipliers([Budget(score, 4.0)], rate=0.5, sign_clip=clip), []
        for arch, cost in (((0, 0, 0), 1.0), ((2, 2, 1), 6.0), ((2, 2, 2), 7.0)):
            assert score([arch])[0] == cost
            multipliers.update(arch)
            seen.append(multipliers.values[0])
        assert seen == pytest.approx(values)


def test_the_penalty_is_zero_on_the_limit_and_has_the_slope_of_the_cost() -> None:
    space = Grid(2, 3)
    score = additive(space, 1)
    relaxation = relaxed(space, [[0.0] * 3] * 2)
    budget = Budget(score, expected(relaxed(space, [[0.0] * 3] * 2), Budget(score, 1.0)))
    multipliers = Multipliers([budget], rate=0.1)
    multipliers.values = [2.0]
    penalty = multipliers.penalty(relaxation.probabilities())
    assert float(penalty.detach()) == pytest.approx(0.0, abs=1e-6)
    slope = gradient(relaxation, penalty)
    wanted = gradient(relaxation, soft(budget).soft(relaxation.probabilities()) * 2.0 / budget.limit)
    torch.testing.assert_close(slope, wanted)
