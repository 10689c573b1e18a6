"""Numbers out of what runs hold as JSON, with their metrics and units."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sartor.core import METRICS, F, Metric

Line = Mapping[str, Any]


def epochs(journal: Sequence[Line]) -> list[Line]:
    """The lines that report an epoch."""
    return [line for line in journal if line.get("event") == "epoch" and number(line.get("epoch")) is not None]


def series(lines: Sequence[Line], key: str) -> F:
    """Values of one field, NaN where a line lacks it."""
    return np.array([np.nan if (v := number(line.get(key))) is None else v for line in lines])


def number(value: Any) -> float | None:
    """A finite float, or None for anything else."""
    ok = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if ok else None


def known(name: str) -> Metric:
    """The metric of that name; one without a unit where sartor knows none."""
    return METRICS.get(name, Metric(name, ""))


def scaled(name: str, values: Iterable[float]) -> tuple[float, str]:
    """A divisor and an axis label with unit: large counts are shown in thousands, millions or billions."""
    of, largest = known(name), max(map(abs, values), default=0.0)
    if of.name in ("macs", "params", "mem_access_bytes"):
        for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if largest >= factor:
                return factor, f"{of.unit} ({prefix})"
    return 1.0, of.label
