"""Fitting: measure what the store lacks, compare predictors on held-out networks, keep the one that has earned it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sartor.core import Json, Measurement, SearchSpace, Target, UserError, metric
from sartor.predictors import PREDICTORS, Predictor
from sartor.targets.measure import measure
from sartor.workflow.measuring import around, design, measure_parts, opened

if TYPE_CHECKING:
    from sartor.targets.store import Store

logger = logging.getLogger("sartor")
NOISE_SAMPLES = 30
ONE_IN = 5  # samples lies near the limit, where there is one; half of these are drawn by a fit that saw the others
FAR = 4.0  # times the limit, or a fourth: what costs as much tells little of what is near it
POOR = 0.5  # Kendall's tau of networks held out, below which a search is warned of it
ENUMERABLE = 20_000
LEAST = 10  # samples


@dataclass(frozen=True)
class Fit:
    """A fitted predictor, and what is known about its quality (`fit.json` of a run)."""

    predictor: Predictor
    report: dict[str, Json]


def fit_predictor(
    name: str,
    space: SearchSpace,
    target: Target,
    *,
    samples: int = 2000,
    metric_name: str = "latency_ms",
    near: float | None = None,
    store: Store | str | None = None,
    seed: int = 0,
) -> Fit:
    """Measure what the store lacks, compare predictors on held-out architectures, fit one on all.

    name: one of PREDICTORS; `auto` compares ridge, mlp and, in small spaces or where there are as many samples as
    products of two slots' candidates, pairs; `all` compares all (lookup where parts are measured alone); both take the
    one that has earned it. Raises UserError when too little could be measured.

    near: a limit, in the metric's unit, which the predictor is for. A fifth of the samples then are random networks
    close to it, and quality there is reported too: devices are not quite additive, and far from the mean of a space a
    fit on samples of all of it was up to 10 % off (benchmarks/landing.py). Samples that cost over four times the limit
    or under a fourth of it are left out, down to the half that is nearest: where some choices cost several times what
    others do, least squares is about these.
    """
    from sartor.predictors.evaluate import evaluate, noise_floor, splits
    from sartor.predictors.ridge import Ridge

    if name not in PREDICTORS and name not in ("auto", "all"):
        PREDICTORS[name]
    with opened(store) as kept:
        archs = design(space, samples if near is None else samples - samples // ONE_IN, seed)
        found = measure(space, target, archs, [metric_name], kept)
        again = measure(space, target, archs[:NOISE_SAMPLES], [metric_name], kept, sitting="repeat")
        if near is not None:
            close = samples // ONE_IN
            for k, count in enumerate((close // 2, close - close // 2)):
                told = _telling(found, near)
                if len(told) < LEAST:
                    break
                values = [found[i].value for i in told]
                rough = Ridge().fit(space, [archs[i] for i in told], values, metric=metric(metric_name))
                more = [arch for arch in around(space, rough, near, count, seed + k) if arch not in archs]
                found += measure(space, target, more, [metric_name], kept)
                archs += more
        names = compared(name, space, len(archs))
        parts = measure_parts(space, target, metric_name, kept) if "lookup" in names else {}
    usable = sum(one.error is None for one in found)
    if usable < LEAST:
        raise UserError(
            f"only {usable} of {len(archs)} networks could be measured on {target.id} (first error: "
            f"{next((one.error for one in found if one.error), 'none')}); a predictor needs {LEAST} or more."
        )
    failed, told = len(archs) - usable, _telling(found, near)
    floor = _floor([(found[i], again[i]) for i in told if i < len(again)], noise_floor)
    archs, values = [archs[i] for i in told], [found[i].value for i in told]
    makers = {n: _maker(n, parts) for n in names}
    rows = evaluate(makers, space, archs, values, metric=metric(metric_name), seed=seed, limit=near, floor=floor)
    chosen = name if name in PREDICTORS else next(str(row["predictor"]) for row in rows if row["default"])
    tau = next(row["kendall"] for row in rows if row["predictor"] == chosen)
    if tau < POOR:
        logger.warning(
            "what predicts %s hardly orders networks it has not seen (Kendall's tau %.2f): give more --samples, or "
            "measure on a quieter machine",
            metric_name,
            tau,
        )

    train, held = next(splits(len(archs), 5, None, seed))
    predicted = {
        n: make().fit(space, [archs[i] for i in train], [values[i] for i in train], metric=metric(metric_name))(
            [archs[i] for i in held]
        )
        for n, make in makers.items()
    }
    predictor = makers[chosen]().fit(space, archs, values, metric=metric(metric_name), target_id=target.id)
    report = {
        "metric": metric_name,
        "unit": metric(metric_name).unit,
        "target": target.id,
        "space": space.spec(),
        "default": chosen,
        "range": [min(values), max(values)],
        "noise_floor": floor,
        "samples": len(archs),
        "failed": failed,
        "left_out": usable - len(archs),
        "conditions": next(dict(one.conditions) for one in found if one.error is None),
        "rows": [{k: v for k, v in row.items() if k != "rmse_splits"} for row in rows],
        "points": {
            "measured": [values[i] for i in held],
            "predicted": {n: [float(v) for v in p] for n, p in predicted.items()},
        },
    }
    return Fit(predictor, report)


def _telling(found: Sequence[Measurement], near: float | None) -> list[int]:
    """Of what did not fail, what tells of networks near a limit: values within FAR times it, in any case half.

    All where no value is so near: of a limit out of reach either end tells nothing more.
    """
    some = [i for i, one in enumerate(found) if one.error is None]
    if near is None or not some:
        return some
    apart = np.abs(np.log(np.maximum([found[i].value for i in some], 1e-12) / near))
    if apart.min() > np.log(FAR):
        return some
    return [some[k] for k in np.flatnonzero(apart <= max(np.log(FAR), np.median(apart)))]


def compared(name: str, space: SearchSpace, samples: int) -> list[str]:
    """Names of the predictors to fit; `auto` spends no time on products that there are too few samples to tell of."""
    widths = np.array([len(slot) if slot.features is None else np.shape(slot.features)[1] for slot in space.slots])
    if name == "auto":
        products = (widths.sum() ** 2 - (widths**2).sum()) // 2
        return ["ridge", *(["pairs"] if products <= samples or space.size <= ENUMERABLE else []), "mlp"]
    if name == "all":
        return ["ridge", *(n for n in PREDICTORS if n != "ridge" and (n != "lookup" or space.local_parts))]
    return list(dict.fromkeys(["ridge", name]))


def _maker(name: str, parts: Mapping[str, float]) -> Any:
    return lambda: PREDICTORS.make(name, **({"parts": parts} if name == "lookup" else {}))


def _floor(twice: Sequence[tuple[Measurement, Measurement]], rmse: Any) -> float | None:
    pairs = [(a.value, b.value) for a, b in twice if a.error is None and b.error is None]
    return float(rmse(*map(np.asarray, zip(*pairs)))) if len(pairs) > 1 else None


def fit(
    name: str,
    space: SearchSpace,
    target: Target,
    *,
    samples: int = 2000,
    metric_name: str = "latency_ms",
    near: float | None = None,
    seed: int = 0,
) -> Predictor:
    """A predictor of a metric of networks of this space on this target; see `fit_predictor`."""
    return fit_predictor(name, space, target, samples=samples, metric_name=metric_name, near=near, seed=seed).predictor
