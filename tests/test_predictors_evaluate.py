"""Evaluation on held-out architectures, and which predictor it recommends."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kendalltau

from sartor.core import UserError
from sartor.predictors.evaluate import choose_default, evaluate, noise_floor, quality, splits
from sartor.predictors.mlp import MLP
from sartor.predictors.ridge import Ridge
from tests.fakes import LATENCY, Grid, additive

SPACE = Grid(6, 4)
ARCHS = SPACE.sample(np.random.default_rng(0), 120)
VALUES = additive(SPACE)(ARCHS) + np.random.default_rng(1).normal(0, 0.1, 120)


def test_quality_by_hand() -> None:
    found = quality(np.array([1.0, 2.0, 3.3, 4.3]), np.array([1.0, 2.0, 3.0, 4.0]))
    assert found["rmse"] == pytest.approx(np.sqrt(0.18 / 4))
    assert found["mae"] == pytest.approx(0.15)
    assert (found["kendall"], found["spearman"]) == (1.0, 1.0)
    assert (found["within_5"], found["within_10"]) == (0.5, 1.0)
    tied = np.array([1.0, 1, 2, 3]), np.array([1.0, 2, 2, 4])
    assert quality(*tied)["kendall"] == pytest.approx(kendalltau(*tied).statistic)
    assert np.isnan(quality(np.ones(3), np.arange(3.0))["kendall"])


def test_the_noise_floor_leaves_failures_out() -> None:
    assert noise_floor([1.0, 2.0, np.nan, 4.0], [2.0, 2.0, 3.0, np.nan]) == pytest.approx(np.sqrt(0.5))
    assert np.isnan(noise_floor([np.nan], [1.0]))


def test_splits_are_disjoint_and_named_by_their_seed() -> None:
    folds = list(splits(23, 5, None, 0))
    assert sorted(np.concatenate([held for _, held in folds])) == list(range(23))
    for train, held in [*folds, *splits(23, 4, 10, 0)]:
        assert not set(train) & set(held)
        assert len(train) + len(held) == 23
    assert [len(train) for train, _ in splits(23, 4, 10, 0)] == [10] * 4
    same, other = next(splits(23, 4, 10, 0))[0], next(splits(23, 4, 10, 1))[0]
    assert next(splits(23, 4, 10, 0))[0].tolist() == same.tolist() != other.tolist()


def test_rows_have_every_figure_and_ridge_is_always_there() -> None:
    values = VALUES.copy()
    values[:3] = np.nan
    rows = evaluate(
        {"weak": lambda: Ridge(1e3)}, SPACE, ARCHS, values, metric=LATENCY, limit=float(np.median(VALUES)), floor=0.14
    )
    assert [r["predictor"] for r in rows] == ["ridge", "weak"]
    for row in rows:
        for name in ("rmse", "mae", "kendall", "spearman", "within_5", "within_10"):
            assert np.isfinite([row[name], row[f"{name}_std"], row[f"near_{name}"]]).all()
        assert (row["dropped"], row["noise_floor"], row["train"]) == (3, 0.14, 93)
        assert len(row["rmse_splits"]) == 5
    assert rows[0]["rmse"] < rows[1]["rmse"]
    assert [r["default"] for r in rows] == [True, False]
    assert rows[0]["rmse"] == pytest.approx(0.1, rel=0.4), "ridge on an additive cost must come close to the noise"


def test_complexity_must_be_earned() -> None:
    def row(name: str, errors: list[float]) -> dict[str, object]:
        return {"predictor": name, "rmse_splits": errors, "train": 80, "test": 20}

    ridge = row("ridge", [1.0, 1.1, 0.9, 1.05, 0.95])
    assert choose_default([ridge, row("mlp", [0.99, 1.12, 0.88, 1.06, 0.94])]) == "ridge"
    assert choose_default([ridge, row("mlp", [0.8, 0.9, 0.7, 0.85, 0.75])]) == "mlp"
    assert choose_default([row("gnn", [0.7, 0.8, 0.6, 0.7, 0.7]), row("mlp", [0.8] * 5), ridge]) == "gnn"
    assert choose_default([ridge, row("mlp", [1.2] * 5)]) == "ridge"


@pytest.mark.parametrize(
    ("n", "options"), [(1, {}), (6, {"count": 7}), (6, {"train": 6}), (6, {"train": 1}), (6, {"count": 1})]
)
def test_too_little_to_split_is_said(n: int, options: dict[str, int]) -> None:
    with pytest.raises(UserError, match="cannot split"):
        evaluate({}, SPACE, ARCHS[:n], VALUES[:n], metric=LATENCY, **options)  # type: ignore[arg-type]


def test_on_a_measured_device_the_mlp_keeps_up_with_ridge() -> None:
    table = Path(os.environ.get("SARTOR_DATA", "../shared/data")) / "fbnet_latency.parquet"
    if not table.exists():
        pytest.skip(f"no table {table}: set SARTOR_DATA to the folder that holds it")
    import pandas as pd

    rows = pd.read_parquet(table, columns=["op_idx", "titan_rtx_1_ms"])[:1500]
    archs = [tuple(map(int, text.split())) for text in rows["op_idx"]]
    found = evaluate(
        {"mlp": lambda: MLP(epochs=40)}, Grid(22, 9), archs, rows["titan_rtx_1_ms"].to_numpy(float),
        metric=LATENCY, train=1000, count=2, limit=8.0,
    )  # fmt: skip
    ridge, mlp = ({r["predictor"]: r for r in found}[name] for name in ("ridge", "mlp"))
    assert ridge["kendall"] > 0.9
    assert mlp["rmse"] < 1.1 * ridge["rmse"]
