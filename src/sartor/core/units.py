"""Metrics and their units. A quantity carries its unit in its name, a limit is typed with its unit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from sartor.core.errors import UserError, unknown


@dataclass(frozen=True)
class Metric:
    """What a number about an architecture means.

    name: identifier with the unit in it (`latency_ms`); unit: for people; better: which direction is good; said: the
    quantity in words, default those of the name.
    """

    name: str
    unit: str
    better: Literal["less", "more"] = "less"
    said: str = ""

    @property
    def label(self) -> str:
        """Axis label: the quantity in words with its unit."""
        words = self.said or self.name.removesuffix("_" + self.unit.lower()).replace("_", " ")
        return f"{words} ({self.unit})" if self.unit else words


METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        Metric("latency_ms", "ms"),
        Metric("training_step_ms", "ms"),
        Metric("energy_mj", "mJ"),
        Metric("peak_memory_mb", "MB"),
        Metric("macs", "MACs"),
        Metric("params", "parameters"),
        Metric("mem_access_bytes", "bytes"),
        Metric("accuracy", "%", "more"),
        Metric("ap", "%", "more", "average precision"),
        Metric("bleu", "", "more"),
        Metric("loss", ""),
        Metric("proxy", "", "more"),
    )
}

QUALITIES = ("accuracy", "ap", "bleu", "loss", "proxy")
"""What networks are for; the other metrics are what they cost."""

COUNTED = ("macs", "params")
"""Costs that are counted of a network, not measured."""

# unit as typed -> (metric, factor to the metric's own unit)
_UNITS: dict[str, tuple[str, float]] = {
    "ns": ("latency_ms", 1e-6),
    "us": ("latency_ms", 1e-3),
    "ms": ("latency_ms", 1.0),
    "s": ("latency_ms", 1e3),
    "ms/step": ("training_step_ms", 1.0),
    "s/step": ("training_step_ms", 1e3),
    "uJ": ("energy_mj", 1e-3),
    "mJ": ("energy_mj", 1.0),
    "J": ("energy_mj", 1e3),
    "MACs": ("macs", 1.0),
    "kMACs": ("macs", 1e3),
    "MMACs": ("macs", 1e6),
    "GMACs": ("macs", 1e9),
    "MB": ("peak_memory_mb", 1.0),
    "GB": ("peak_memory_mb", 1e3),
    "params": ("params", 1.0),
    "kparams": ("params", 1e3),
    "Mparams": ("params", 1e6),
}
_LIMIT = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([A-Za-z%/]*)\s*")


def metric(name: str) -> Metric:
    """The metric of that name. Raises UserError for an unknown one."""
    if name not in METRICS:
        raise unknown("metric", name, METRICS)
    return METRICS[name]


def parse_limit(text: str, also: str = "") -> tuple[Metric, float]:
    """Read a limit typed with its unit: `20ms`, `1.5mJ`, `300MMACs`.

    Returns the metric and the value in the metric's own unit. also: what else may be typed here, for the message.
    Raises UserError for a bare number, an unknown unit, zero, a negative or a non-finite value.
    """
    match = _LIMIT.fullmatch(text)
    units = ", ".join(_UNITS)
    if match is None:
        raise UserError(f"limit {text!r} is not a number with a unit; write it like 20ms or 300MMACs ({units}).")
    number, unit = float(match[1]), match[2]
    if not unit:
        more = f", or like {also}" if also else ""
        raise UserError(f"limit {text!r} has no unit; write it like {text.strip()}ms{more} (units: {units}).")
    if unit not in _UNITS:
        raise unknown("unit", unit, _UNITS)
    if not 0 < number < float("inf"):
        raise UserError(f"limit {text!r} must be positive and finite; a budget is an upper limit such as 20ms.")
    name, factor = _UNITS[unit]
    return METRICS[name], number * factor


def typed(value: float, name: str) -> str:
    """A limit as it is typed, for `parse_limit`: `20.0ms`, `300.0ms/step`. name: of a metric that has a unit there."""
    unit = next(unit for unit, of in _UNITS.items() if of == (name, 1.0))
    return f"{float(value)!r}{unit}"


def show(value: float, of: Metric) -> str:
    """A value with its unit, short enough for a log line: `19.87 ms`, `344.9 MMACs`."""
    if of.name in ("macs", "params", "mem_access_bytes"):
        for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if abs(value) >= factor:
                return f"{value / factor:.4g} {prefix}{of.unit}"
    return f"{value:.4g} {of.unit}".rstrip()
