"""Terms, budgets and units."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sartor.core import Budget, SearchSpace, Terms, TermScore, UserError, parse_limit
from sartor.core.errors import Unreachable, unknown
from sartor.core.registry import Registry, parse_reference
from sartor.core.units import METRICS, metric, show, typed
from tests.contracts.scores import check_expectation, check_score
from tests.fakes import LATENCY, Curved, Forest, Grid, Ragged, additive, pairwise, ratio
from tests.test_core_spaces import forests


@pytest.mark.parametrize("make", [additive, pairwise, ratio, Curved])
@pytest.mark.parametrize("space", [Ragged(), Grid(), Ragged().restrict({0: [2, 1]})], ids=["ragged", "grid", "window"])
def test_the_fakes_satisfy_the_contract(space: SearchSpace, make) -> None:  # type: ignore[no-untyped-def]
    check_score(make(space), space)


@settings(max_examples=80, deadline=None)
@given(forests(), st.integers(0, 999))
def test_soft_terms_of_probabilities_are_expectations(space: Forest, seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = [len(s) for s in space.slots]
    pair = {(i, j): rng.normal(size=(sizes[i], sizes[j])) for i in range(len(sizes)) for j in range(i + 1, len(sizes))}
    check_expectation(TermScore(space, LATENCY, Terms(3.0, tuple(rng.normal(size=n) for n in sizes), pair)), space)


def test_terms_by_hand() -> None:
    space = Ragged()
    unary = tuple(np.arange(len(s), dtype=float) + 1 for s in space.slots)
    pair = {(1, 2): np.full((3, 4), 100.0)}
    under = Terms(2.0, tuple(np.zeros(len(s)) for s in space.slots))
    archs = [(0, 2, 0, 0, 0), (1, 0, 3, 0, 0), (2, 1, 0, 1, 1)]
    assert Terms(10.0, unary, pair)(space, archs).tolist() == [14, 117, 10 + 3 + 2 + 1 + 2 + 2 + 100]
    assert Terms(10.0, unary, pair, under)(space, np.array(archs)).tolist() == [7, 58.5, 60]  # type: ignore[arg-type]
    assert Terms(10.0, unary)(space, []).shape == (0,)


def test_a_budget_says_what_lands() -> None:
    score = additive(Grid())
    most, at = score.at("20ms"), score.at("20ms", "at")
    assert [most.lands(c) for c in (19.89, 19.9, 20.0, 20.01)] == [False, True, True, False]
    assert [at.lands(c) for c in (19.89, 19.9, 20.1, 20.11)] == [False, True, True, False]
    assert most.feasible(5.0)
    assert not most.feasible(20.1)
    assert at.feasible(20.1)
    assert not most.lands(float("nan"))
    assert not most.feasible(float("nan"))
    assert most.gap_percent(19.0) == pytest.approx(-5.0)
    assert str(most) == "latency <= 20 ms"
    with pytest.raises(UserError, match="energy_mj"):
        score.at("2mJ")
    for limit in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(UserError, match="positive"):
            Budget(score, limit)


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [("20ms", "latency_ms", 20), ("1.5 J", "energy_mj", 1500), ("300MMACs", "macs", 3e8), (".5s", "latency_ms", 500)],
)
def test_limits_are_read_with_their_unit(text: str, name: str, value: float) -> None:
    assert parse_limit(text) == (METRICS[name], pytest.approx(value))


@pytest.mark.parametrize(
    ("text", "says"),
    [("20", "no unit"), ("20 parsecs", "unknown unit"), ("0ms", "positive"), ("-2ms", "positive"), ("ms", "number")],
)
def test_limits_that_make_no_sense_are_one_line(text: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        parse_limit(text)
    assert "\n" not in str(caught.value)


@given(st.floats(1e-3, 1e6))
def test_any_positive_number_of_milliseconds_is_a_limit(value: float) -> None:
    assert parse_limit(f"{value!r}ms")[1] == value
    for name in ("latency_ms", "training_step_ms", "energy_mj", "peak_memory_mb", "macs", "params"):
        assert parse_limit(typed(value, name)) == (METRICS[name], value)


def test_values_are_shown_short() -> None:
    assert show(344_900_000, metric("macs")) == "344.9 MMACs"
    assert show(19.8712, metric("latency_ms")) == "19.87 ms"
    with pytest.raises(UserError, match="latency_ms"):
        metric("latency")


def test_registry_names_and_references() -> None:
    registry: Registry[object] = Registry("thing", {"lazy": "fractions:Fraction", "plain": dict})
    assert registry.make("lazy", 3, denominator=4) == 0.75
    assert list(registry) == ["lazy", "plain"]
    with pytest.raises(UserError, match="did you mean 'plain'"):
        registry["plane"]
    with pytest.raises(UserError, match="nominator"):
        registry.make("lazy", nominator=4)
    assert parse_reference("a:b?x=1&y=2.5&z=true&w=no&v=none") == (
        "a", "b", {"x": 1, "y": 2.5, "z": True, "w": "no", "v": None},
    )  # fmt: skip
    assert parse_reference("a") == ("a", None, {})
    with pytest.raises(UserError, match="options"):
        parse_reference("a?x")


def test_errors_are_one_line_with_an_exit_code() -> None:
    assert str(UserError("two\n   lines")) == "two lines"
    assert (UserError.exit_code, Unreachable.exit_code) == (2, 3)
    assert "did you mean 'ridge'" in str(unknown("predictor", "rigde", ["ridge", "mlp"]))
    many = str(unknown("model", "resnet5", [f"resnet{i}" for i in range(6, 90)]))
    assert many.count("resnet") == 12  # the one given, ten near ones, the nearest again
    assert "74 more" in many
