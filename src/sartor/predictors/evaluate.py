"""Honest evaluation of predictors: held-out architectures, beside additive ridge and the noise floor."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sartor.core import F, Metric, SearchSpace, UserError
from sartor.core.progress import progress
from sartor.predictors.base import Predictor
from sartor.predictors.ridge import Ridge

NEAR = 0.10
_LEAST_NEAR = 5


def quality(predicted: F, measured: F) -> dict[str, float]:
    """Errors of predictions (n,) against values (n,), in their unit, and of their order.

    rmse, mae; kendall (tau-b) and spearman, NaN where either is constant; within_5, within_10: share whose relative
    error is at most 5 and 10 %.
    """
    from scipy.stats import kendalltau, spearmanr

    error = predicted - measured
    relative = np.abs(error) / np.maximum(np.abs(measured), 1e-300)
    ordered = len(measured) > 1 and np.ptp(predicted) > 0 and np.ptp(measured) > 0
    return {
        "rmse": float(np.sqrt(np.mean(error**2))),
        "mae": float(np.mean(np.abs(error))),
        "kendall": float(kendalltau(predicted, measured).statistic) if ordered else float("nan"),
        "spearman": float(spearmanr(predicted, measured).statistic) if ordered else float("nan"),
        "within_5": float(np.mean(relative <= 0.05)),
        "within_10": float(np.mean(relative <= 0.10)),
    }


def noise_floor(first: Sequence[float] | F, second: Sequence[float] | F) -> float:
    """RMSE between two measuring passes over the same architectures; failures of either are left out."""
    gap = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    gap = gap[np.isfinite(gap)]
    return float(np.sqrt(np.mean(gap**2))) if len(gap) else float("nan")


def splits(n: int, count: int, train: int | None, seed: int) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """`count` pairs of (train, test) indices of n: k folds, or with `train` that many drawn anew each time."""
    stream = zlib.crc32(b"predictors/evaluate")
    if train is None:
        order = np.random.default_rng([seed, stream]).permutation(n)
        for fold in np.array_split(order, count):
            yield np.setdiff1d(order, fold), fold
        return
    for i in range(count):
        order = np.random.default_rng([seed, stream, i]).permutation(n)
        yield order[:train], order[train:]


def evaluate(
    predictors: Mapping[str, Callable[[], Predictor]],
    space: SearchSpace,
    archs: Sequence[Sequence[int]],
    values: Sequence[float] | F,
    *,
    metric: Metric,
    train: int | None = None,
    count: int = 5,
    seed: int = 0,
    limit: float | None = None,
    floor: float | None = None,
) -> list[dict[str, Any]]:
    """One row per predictor, `ridge` always among them: means over splits and, as `NAME_std`, standard deviations.

    predictors: constructors by name; values: NaN is dropped and counted; train: size of `count` random training
    sets, None for `count` folds; limit: adds the same figures, as `near_NAME`, over test architectures whose value
    is within 10 % of it; floor: noise floor of the values. `rmse_splits` has the single RMSEs, `default` marks what
    sartor would use. Raises UserError when there is too little to split.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.shape != (len(archs),):
        raise UserError(f"there are {len(archs)} architectures and {numbers.size} values; give one value for each.")
    whole = np.flatnonzero(np.isfinite(numbers))
    most = len(whole) - 1 if train is not None else len(whole) // 2
    if count < 2 or (train or 2) > most or (train is None and count > most) or (train is not None and train < 2):
        raise UserError(
            f"cannot split {len(whole)} measured architectures {count} times"
            f"{'' if train is None else f' with {train} to train on'}; measure more, or ask for less."
        )
    known, numbers = [space.canonical(archs[i]) for i in whole.tolist()], numbers[whole]
    rows, makers = [], {"ridge": Ridge, **predictors}
    for name, make in makers.items():
        results = []
        for fit, held in progress(splits(len(known), count, train, seed), f"evaluate {name}", count):
            began = time.perf_counter()
            fitted = make().fit(space, [known[i] for i in fit], numbers[fit], metric=metric)
            seconds = time.perf_counter() - began
            predicted, truth = fitted([known[i] for i in held]), numbers[held]
            found = {**quality(predicted, truth), "train": float(len(fit)), "seconds": seconds}
            if limit is not None:
                near = np.abs(truth / limit - 1.0) <= NEAR
                found["near"] = float(near.sum())
                if near.sum() >= _LEAST_NEAR:
                    found |= {f"near_{k}": v for k, v in quality(predicted[near], truth[near]).items()}
            results.append(found)
        rows.append(_row(name, results) | {"test": len(held), "dropped": len(archs) - len(whole), "noise_floor": floor})
    chosen = choose_default(rows)
    return [row | {"default": row["predictor"] == chosen} for row in rows]


def _row(name: str, results: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    row: dict[str, Any] = {"predictor": name}
    for key in dict.fromkeys(k for r in results for k in r):
        numbers = [r[key] for r in results if np.isfinite(r.get(key, np.nan))]
        row[key] = float(np.mean(numbers)) if numbers else float("nan")
        row[f"{key}_std"] = float(np.std(numbers, ddof=1)) if len(numbers) > 1 else float("nan")
    row["train"] = int(row["train"])
    del row["train_std"], row["seconds_std"]
    return row | {"rmse_splits": [r["rmse"] for r in results]}


def choose_default(rows: Sequence[Mapping[str, Any]]) -> str:
    """Name of the predictor sartor would use: ridge, unless another's RMSE is lower by more than a standard error.

    The error is of the paired difference over splits, corrected for the training sets they share (Nadeau and
    Bengio, 2003: variance times 1/k + test/train). Of several better ones, the best.
    """
    by_name = {row["predictor"]: row for row in rows}
    ridge = by_name["ridge"]
    best, least = "ridge", 0.0
    for name, row in by_name.items():
        gain = np.array(ridge["rmse_splits"]) - np.array(row["rmse_splits"])
        share = 1.0 / len(gain) + row["test"] / row["train"]
        if gain.mean() > max(least, float(np.sqrt(gain.var(ddof=1) * share))):
            best, least = name, float(gain.mean())
    return best
