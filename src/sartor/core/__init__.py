"""The idea and its words. Names are imported when they are asked for: help and errors need neither torch nor numpy."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sartor.core.errors import Unreachable, UserError
    from sartor.core.method import Chooser, Found, Landed, Measurement, Method, Target
    from sartor.core.registry import Registry, parse_reference
    from sartor.core.score import Budget, FunctionScore, Score, SoftScore, Terms, TermScore
    from sartor.core.space import F, Part, SearchSpace, Slot
    from sartor.core.task import Batch, Path, Split, Supernet, Task
    from sartor.core.types import Architecture, Json, Optimiser
    from sartor.core.units import METRICS, Metric, metric, parse_limit, show

_HOME = {
    "sartor.core.errors": ("Unreachable", "UserError"),
    "sartor.core.method": ("Chooser", "Found", "Landed", "Measurement", "Method", "Target"),
    "sartor.core.registry": ("Registry", "parse_reference"),
    "sartor.core.score": ("Budget", "FunctionScore", "Score", "SoftScore", "Terms", "TermScore"),
    "sartor.core.space": ("F", "Part", "SearchSpace", "Slot"),
    "sartor.core.types": ("Architecture", "Json", "Optimiser"),
    "sartor.core.task": ("Batch", "Path", "Split", "Supernet", "Task"),
    "sartor.core.units": ("METRICS", "Metric", "metric", "parse_limit", "show"),
}
_WHERE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "METRICS",
    "Architecture",
    "Batch",
    "Budget",
    "Chooser",
    "F",
    "Found",
    "FunctionScore",
    "Json",
    "Landed",
    "Measurement",
    "Method",
    "Metric",
    "Optimiser",
    "Part",
    "Path",
    "Registry",
    "Score",
    "SearchSpace",
    "Slot",
    "SoftScore",
    "Split",
    "Supernet",
    "Target",
    "Task",
    "TermScore",
    "Terms",
    "Unreachable",
    "UserError",
    "metric",
    "parse_limit",
    "parse_reference",
    "show",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'sartor.core' has no attribute {name!r}")
    found = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = found
    return found
