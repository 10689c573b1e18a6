"""The idea and its words; imports no torch."""

from sartor.core.errors import Unreachable, UserError
from sartor.core.method import Chooser, Found, Landed, Measurement, Method, Target
from sartor.core.registry import Registry, parse_reference
from sartor.core.score import Budget, Score, SoftScore, Terms, TermScore
from sartor.core.space import Architecture, F, Json, Part, SearchSpace, Slot
from sartor.core.task import Batch, Path, Split, Supernet, Task
from sartor.core.units import METRICS, Metric, metric, parse_limit, show

__all__ = [
    "METRICS",
    "Architecture",
    "Batch",
    "Budget",
    "Chooser",
    "F",
    "Found",
    "Json",
    "Landed",
    "Measurement",
    "Method",
    "Metric",
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
