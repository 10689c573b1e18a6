"""Methods and predictors on tables: methods see queries, tables grade."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sartor import cli, spaces, tables
from sartor.bench import ASKING, Asked, Cautious, Earned, Job, compare_methods, compare_predictors, predicting
from sartor.core import METRICS, Architecture, Budget, Score, SearchSpace, Terms, Unreachable, UserError
from sartor.predictors.evaluate import quality as held_out
from sartor.predictors.ridge import Ridge
from sartor.runs import Run
from sartor.tables import Table
from tests.test_data_sources import SARTOR_DATA, needs_data

SPACE = spaces.get("nas-bench-macro")
ARCHS = list(SPACE.enumerate())
SUMMARY = {"method", "queries", "optimum_test", "test_mean", "test_std", "spearman_mean", "budget_met_share"}
SUMMARY |= {"accuracy_rows", "cost_rows"}


def columns(seed: int = 0) -> dict[str, Any]:
    """Accuracies that are nearly additive, a test accuracy near them, an additive cost; every tenth row lacks one."""
    rng = np.random.default_rng(seed)
    index = np.array(ARCHS)
    gain, price = rng.uniform(0, 3, (8, 3)), rng.uniform(0.1, 1, (8, 3))
    layer = np.arange(8)
    valid = 60 + gain[layer, index].sum(axis=1) + rng.normal(0, 0.3, len(index))
    out = {
        "valid_acc": valid,
        "test_acc": valid + rng.normal(0, 0.2, len(index)) + 5,
        "pi_ms": price[layer, index].sum(1),
    }
    out["test_acc"][::10] = np.nan
    return out


@pytest.fixture(scope="module")
def table() -> Table:
    return Table(SPACE, ARCHS, columns())


def compared(table: Table, place: Path, seed: int = 0, **job: Any) -> dict[str, Any]:
    given = Job(**{"method": "random", "accuracy": "valid_acc", "test": "test_acc", "queries": 60, "seeds": 3, **job})
    with Run(place / "run", {"job": str(given)}, seed) as run:
        return compare_methods(table, given, run)


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Predictors that take no time: a good one and one that says always the same."""
    monkeypatch.setattr(predicting, "_makers", lambda: {"ridge": Ridge, "weak": partial(Ridge, 1e9)})
    monkeypatch.setattr(predicting, "_QUICK", ("ridge", "weak"))
    monkeypatch.setitem(predicting.PREDICTORS._entries, "weak", partial(Ridge, 1e9))


# ---------------------------------------------------------------------- what a method may ask


def test_answers_are_counted_once_each_and_end_with_the_queries() -> None:
    score = Asked(SPACE, METRICS["accuracy"], {ARCHS[0]: 1.0, ARCHS[1]: 2.0, ARCHS[2]: 3.0}, most=2)
    assert score([ARCHS[1], ARCHS[0], ARCHS[1]]).tolist() == [2.0, 1.0, 2.0]
    assert np.isnan(score([ARCHS[9]])[0])
    assert score.read == {ARCHS[0], ARCHS[1]}
    with pytest.raises(ValueError, match="3 architectures, 2"):
        score([ARCHS[2]])
    assert score([ARCHS[0]]).tolist() == [1.0]


def test_a_method_sees_queries_and_the_table_grades(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = np.random.default_rng(0).permutation(len(ARCHS))
    usable = [ARCHS[i] for i in order if np.isfinite(table.columns["test_acc"][i])]
    test = {a: table.columns["test_acc"][table.row[a]] for a in usable}
    seen: list[Any] = []

    def curious(
        space: SearchSpace, quality: Score, budgets: Sequence[Budget], queries: int, seed: int
    ) -> tuple[Architecture, Score]:
        seen.append((quality, budgets, queries, seed))
        values = quality(usable[:queries])
        with pytest.raises(ValueError):
            quality(usable[queries : queries + 1])
        assert np.isnan(quality([ARCHS[0]])[0])  # it has no test accuracy: it is no network here
        return usable[int(np.argmax(values))], Ridge().fit(space, usable[:queries], values, metric=quality.metric)

    monkeypatch.setitem(ASKING._entries, "curious", curious)
    found = compared(table, tmp_path, method="curious", queries=200, seeds=2, costs=("pi_ms",), limits=("100ms",))
    assert [(queries, seed) for _, _, queries, seed in seen] == [(200, 0), (200, 1)]
    for asked, (budget,), _, _ in seen:
        known = set(asked._values.values()) | set(budget.score._values.values())
        assert not known & set(test.values())
    best = max(usable[:200], key=lambda a: table.columns["valid_acc"][table.row[a]])
    assert found["test_mean"] == pytest.approx(test[best])
    assert (found["test_std"], found["accuracy_rows"], found["cost_rows"]) == (0.0, 200, 0)
    assert 0.8 < found["spearman_mean"] <= 1
    assert found["baselines"]["random"]["spearman_mean"] is None


def test_rows_without_a_number_are_left_out_of_everything(table: Table, tmp_path: Path) -> None:
    found = compared(table, tmp_path, method="evolution", queries=400)
    missing = int(np.isnan(table.columns["test_acc"]).sum())
    assert (found["rows"], found["left_out"]) == (len(ARCHS) - missing, missing)
    assert found["optimum_test"] == np.nanmax(table.columns["test_acc"])
    for point in found["points"]:
        assert np.isfinite(table.columns["test_acc"][table.row[tuple(point["architecture"])]])
        assert point["accuracy_rows"] == 400
    evolved, drawn = found["baselines"]["evolution"], found["baselines"]["random"]
    assert evolved == {k: found[k] for k in SUMMARY}
    assert drawn.keys() == evolved.keys() == SUMMARY
    assert evolved["optimum_test"] >= evolved["test_mean"] > drawn["test_mean"]


def test_queries_beyond_the_table_see_all_of_it(table: Table, tmp_path: Path) -> None:
    found = compared(table, tmp_path, queries=10_000, seeds=1)
    assert found["accuracy_rows"] == found["rows"]
    assert found["test_std"] is None
    best = np.argmax(np.where(np.isfinite(table.columns["test_acc"]), table.columns["valid_acc"], 0))
    assert found["points"][0]["architecture"] == list(ARCHS[best])


def test_a_known_cost_keeps_the_budget_and_says_how_much_it_was_asked(table: Table, tmp_path: Path) -> None:
    limit = float(np.quantile(table.columns["pi_ms"], 0.02))
    found = compared(table, tmp_path, method="evolution", costs=("pi_ms",), limits=(f"{limit}ms",))
    inside = (table.columns["pi_ms"] <= limit) & np.isfinite(table.columns["test_acc"])
    assert found["optimum_test"] == table.columns["test_acc"][inside].max()
    assert (found["cost"], found["budget_met_share"]) == ("known", 1.0)
    assert found["budgets"] == [{"metric": "latency_ms", "limit": limit, "unit": "ms", "sense": "at_most"}]
    for row in (found, found["baselines"]["random"]):
        assert row["accuracy_rows"] == 60
        assert 60 < row["cost_rows"] <= len(ARCHS)
        assert row["test_mean"] <= found["optimum_test"]


def test_a_predicted_cost_is_fitted_on_stated_rows_and_graded_by_the_table(
    table: Table, tmp_path: Path, cheap: None
) -> None:
    limit = float(np.quantile(table.columns["pi_ms"], 0.3))
    found = compared(table, tmp_path, costs=("pi_ms",), limits=(f"{limit}ms",), cost_rows=12, seeds=8)
    assert (found["cost"], found["cost_rows"]) == ("predicted", 12)
    met = [(p["costs"]["pi_ms"] or 99) <= limit for p in found["points"] if p["method"] == "random"]
    assert found["budget_met_share"] == np.mean(met) < 1


def test_costs_can_be_predicted_by_others_and_answers_alone_find_the_same(table: Table, tmp_path: Path) -> None:
    limit, asked = float(np.quantile(table.columns["pi_ms"], 0.3)), list[tuple[str, int]]()

    def believed(cost: str, seed: int) -> Score:
        asked.append((cost, seed))
        return table.score(cost)

    options = {"costs": ("pi_ms",), "limits": (f"{limit}ms",), "cost_rows": 12, "seeds": 2}
    found = []
    for method in ("mathnas", "mathnas-answer"):
        job = Job(method, "valid_acc", "test_acc", queries=60, **options)  # type: ignore[arg-type]
        with Run(tmp_path / method, {"job": method}, 0) as run:
            found.append(compare_methods(table, job, run, (), believed))
    whole, quick = found
    assert asked == [("pi_ms", 0), ("pi_ms", 1)] * 2
    assert [p["architecture"] for p in quick["points"]] == [p["architecture"] for p in whole["points"]]
    assert (quick["budget_met_share"], quick["cost_rows"], quick["spearman_mean"]) == (1.0, 12, None)


def test_several_budgets_are_met_together_or_refused_together(table: Table, tmp_path: Path) -> None:
    both = {**table.columns, "dsp_ms": np.array([sum(2 - k for k in arch) for arch in ARCHS], dtype=float) + 1.0}
    two = Table(SPACE, ARCHS, both)
    tight = float(np.quantile(both["pi_ms"], 0.2))
    found = compared(two, tmp_path / "a", costs=("pi_ms", "dsp_ms"), limits=(f"{tight}ms", "9ms"))
    inside = (both["pi_ms"] <= tight) & (both["dsp_ms"] <= 9) & np.isfinite(both["test_acc"])
    assert found["optimum_test"] == both["test_acc"][inside].max()
    assert found["budget_met_share"] == 1.0
    assert [(b["metric"], b["limit"]) for b in found["budgets"]] == [("latency_ms", tight), ("latency_ms", 9.0)]
    for point in found["points"]:
        assert point["costs"]["pi_ms"] <= tight
        assert point["costs"]["dsp_ms"] <= 9
    whole = np.isfinite(both["test_acc"])
    alone, least = (both["pi_ms"][whole & (both["dsp_ms"] <= most)].min() for most in (99.0, 3.0))
    assert alone < least
    with pytest.raises(Unreachable, match="together"):
        compared(two, tmp_path / "b", costs=("pi_ms", "dsp_ms"), limits=(f"{(alone + least) / 2}ms", "3ms"))


def test_a_predicted_cost_stands_above_what_it_may_be_wrong_by(table: Table, cheap: None) -> None:
    rng = np.random.default_rng(0)
    archs = SPACE.sample(rng, 300)
    truth = lambda a: table.columns["pi_ms"][[table.row[x] for x in a]]  # noqa: E731
    noisy = truth(archs) * (1 + 0.1 * rng.normal(size=300))
    cost = Cautious(SPACE, archs, noisy, METRICS["latency_ms"])
    others = SPACE.sample(rng, 1000)
    again = truth(others) * (1 + 0.1 * rng.normal(size=1000))
    assert 0.95 < np.mean(again <= cost(others)) < 1.0
    exact = Cautious(SPACE, archs, truth(archs), METRICS["latency_ms"])
    assert exact.margin == pytest.approx(1.0, abs=1e-3)
    few = Cautious(SPACE, archs[:3], noisy[:3], METRICS["latency_ms"])
    assert few.margin == 1.0


@pytest.mark.parametrize("method", ["mathnas", "mathnas-paper", "mathnas-blocks", "lana", "brp-nas"])
def test_methods_that_predict_keep_budget_and_queries(
    method: str, table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    macs = Terms(1.0, (np.array([0.0, 1.0, 3.0]),) * 8)  # the table's space builds no network that could be counted
    for module in ("sartor.bench.asking", "sartor.methods.mathnas"):
        monkeypatch.setattr(f"{module}.additive_macs", lambda _: macs)
    whole = {**table.columns, "test_acc": table.columns["valid_acc"] + 5}
    table = Table(SPACE, ARCHS, whole)
    limit = float(np.quantile(table.columns["pi_ms"], 0.3))
    found = compared(table, tmp_path, method=method, costs=("pi_ms",), limits=(f"{limit}ms",), seeds=1)
    asked = {"mathnas-paper": 18, "lana": 17}.get(method, 60)
    assert found["accuracy_rows"] <= asked
    assert found["spearman_mean"] > 0.5
    (point,) = (p for p in found["points"] if p["method"] == method)
    assert 0.5 < point["spearman_all"] < 1.0
    assert found["budget_met_share"] == 1.0
    assert found["test_mean"] > np.quantile(table.columns["test_acc"][table.columns["pi_ms"] <= limit], 0.6)


def test_seeds_are_the_run_s_and_its_answers_are_kept(table: Table, tmp_path: Path) -> None:
    first, other = compared(table, tmp_path / "a", seeds=2), compared(table, tmp_path / "b", seed=1, seeds=2)
    of = lambda found, seed: [p for p in found["points"] if p["seed"] == seed]  # noqa: E731
    assert of(first, 1) == of(other, 1) != of(other, 2)
    assert compared(table, tmp_path / "a", seeds=2) == first


@pytest.mark.parametrize(
    ("job", "words"),
    [
        ({"method": "lightnas"}, ("supernet", "evolution", "sartor search lightnas --space nas-bench-macro")),
        ({"method": "surgenas"}, ("supernet",)),
        ({"method": "evolutoin"}, ("did you mean 'evolution'",)),
        ({"accuracy": "valid"}, ("unknown column", "valid_acc")),
        ({"test": "pi_ms"}, ("latency_ms", "accuracies")),
        ({"costs": ("pi_ms",)}, ("one budget for each",)),
        ({"limits": ("1ms",)}, ("one budget for each",)),
        ({"costs": ("pi_ms", "pi_ms"), "limits": ("1ms", "2ms")}, ("no column twice",)),
        ({"costs": ("pi_ms",), "limits": ("1mJ",)}, ("energy_mj", "write the limit in ms")),
        ({"costs": ("pi_ms",), "limits": ("5ms",), "cost_rows": 6000}, ("6000", "give fewer")),
        ({"cost_rows": 6}, ("without a cost",)),
    ],
)
def test_jobs_that_cannot_be_done_are_one_line(
    job: dict[str, Any], words: tuple[str, ...], table: Table, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as error:
        compared(table, tmp_path, **job)
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words), error.value


def test_a_budget_out_of_reach_says_what_is_in_reach(table: Table, tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match=r"1us .* reach from .* ms to .* ms"):
        compared(table, tmp_path, costs=("pi_ms",), limits=("1us",))


# ---------------------------------------------------------------------- predictors


def test_every_predictor_is_graded_on_the_rows_it_did_not_see(table: Table, cheap: None) -> None:
    found = compare_predictors(table, "pi_ms", [10, 200], seeds=3)
    rows = {(row["predictor"], row["train"]): row for row in found["rows"]}
    assert rows.keys() == {(p, n) for p in ("ridge", "weak", "default") for n in (10, 200)}
    for row in rows.values():
        assert row["test"] == len(ARCHS) - row["train"]
        figures = ("kendall", "rmse", "mae", "within_5", "within_10")
        assert all(np.isfinite([row[k], row[f"{k}_std"]]).all() for k in figures)
    assert rows["ridge", 200]["spearman"] > rows["ridge", 10]["spearman"]
    assert rows["default", 200]["chosen"] == {"ridge": 3}
    assert rows["default", 200]["rmse"] == pytest.approx(rows["ridge", 200]["rmse"])


def test_the_default_is_chosen_by_the_rows_it_is_fitted_on_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    rng, fitted = np.random.default_rng(0), list[Architecture]()

    class Spy(Ridge):
        def _fit(self, archs: Any, values: Any) -> Any:
            fitted.extend(archs)
            return super()._fit(archs, values)

    monkeypatch.setattr(predicting, "_makers", lambda: {"ridge": Spy})
    monkeypatch.setitem(predicting.PREDICTORS._entries, "ridge", Spy)
    train = SPACE.sample(rng, 40)
    Earned().fit(SPACE, train, rng.random(40), metric=METRICS["latency_ms"])
    assert set(fitted) == set(train)
    few = Earned()
    few.fit(SPACE, train[:3], rng.random(3), metric=METRICS["latency_ms"])
    assert few.chosen == {"ridge": 1}


@needs_data
@pytest.mark.parametrize(
    ("name", "file", "cost", "least"),
    [
        ("nas-bench-201", "nas_bench_201.parquet", "help_gold_6226_latency_ms", 0.985),
        ("nas-bench-macro", "nas_bench_macro_cifar10.csv.gz", "flops", 0.999),
        ("fbnet", "fbnet_latency.parquet", "gold_6226_ms", 0.965),
        ("ofa-mobilenetv3", "ofa_mobilenetv3_latency.parquet", "titan_rtx_64_ms", 0.985),
        ("hat", "hat_transformer_latency.parquet", "wmt14ende_cpu_xeon_latency_mean_decoder", 0.97),
    ],
)
def test_ridge_orders_the_rows_of_every_public_table(name: str, file: str, cost: str, least: float) -> None:
    table = tables.load(name, f"{SARTOR_DATA}/{file}")
    score = table.score(cost)
    known = np.flatnonzero(np.isfinite(score.values))
    order, archs = np.random.default_rng(0).permutation(known), list(table.row)
    train, test = order[:900], order[900:1900]
    ridge = Ridge().fit(table.space, [archs[i] for i in train], score.values[train], metric=score.metric)
    assert held_out(ridge([archs[i] for i in test]), score.values[test])["spearman"] > least


@needs_data
def test_evolution_finds_the_optimum_of_nas_bench_201_and_random_search_does_not(tmp_path: Path) -> None:
    table = tables.load("nas-bench-201", f"{SARTOR_DATA}/nas_bench_201.parquet")
    job = Job("evolution", "cifar10_valid_acc_200ep", "cifar10_test_acc_200ep", queries=781, seeds=2)
    with Run(tmp_path / "run", {}) as run:
        found = compare_methods(table, job, run)
    assert found["optimum_test"] == pytest.approx(94.37, abs=0.005)
    assert found["test_mean"] > 94.3 > found["baselines"]["random"]["test_mean"] > 93.5


# ---------------------------------------------------------------------- the command line


@pytest.fixture
def file(tmp_path: Path) -> Path:
    names = ["".join(map(str, arch)) for arch in ARCHS]
    pd.DataFrame({"arch": names, **columns()}).to_parquet(tmp_path / "macro.parquet")
    return tmp_path / "macro.parquet"


def sartor(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    monkeypatch.setattr(sys, "argv", ["sartor", *words])
    with pytest.raises(SystemExit) as done:
        cli.main()
    out, err = capsys.readouterr()
    assert done.value.code == 0, err
    result = json.loads(out)
    assert isinstance(result, dict)
    return result


def test_bench_prints_one_object_and_goes_on(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"bench nas-bench-macro --table {file} --method evolution --accuracy valid_acc --test test_acc --cost pi_ms"
    line = [
        *words.split(),
        "--budget",
        "4.5ms",
        "--queries",
        "90",
        "--seeds",
        "2",
        "--run",
        str(tmp_path / "run"),
        "--json",
    ]
    found = sartor(line, monkeypatch, capsys)
    assert {"verb", "run", "seed", "seconds", "sartor_version", *SUMMARY} <= found.keys()
    assert found["verb"] == "bench"
    assert found["queries"] == 90
    assert found["baselines"].keys() == {"random", "evolution"}
    assert all(row.keys() == SUMMARY for row in found["baselines"].values())
    assert sartor(line, monkeypatch, capsys) == found


def test_bench_predictors_prints_rows(
    file: Path, tmp_path: Path, cheap: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"bench predictors --table {file} --space nas-bench-macro --cost pi_ms --train 10,50 --seeds 2 --json"
    found = sartor([*words.split(), "--run", str(tmp_path / "run")], monkeypatch, capsys)
    assert [(row["predictor"], row["train"]) for row in found["rows"]] == [
        (name, n) for n in (10, 50) for name in ("ridge", "weak", "default")
    ]
    keys = {"spearman", "kendall", "rmse", "mae", "within_5", "within_10"}
    assert all({*keys, *(f"{k}_std" for k in keys)} <= row.keys() for row in found["rows"])
