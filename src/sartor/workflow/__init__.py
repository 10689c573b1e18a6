"""The main way through the house: measure a sample, fit a predictor, search, measure the winner.

The command line and the Python interface are both made of these functions.
"""

from sartor.workflow.adapting import adapt
from sartor.workflow.fitting import Fit, fit, fit_predictor
from sartor.workflow.measuring import (
    Measured,
    compare,
    default_store,
    design,
    match_uniform,
    measure_parts,
    opened,
    remeasure,
    remeasure_found,
    remeasure_unfolded,
)
from sartor.workflow.networks import (
    collapse_error,
    export_network,
    for_task,
    load_architecture,
    load_found,
    load_network,
    method_of,
    teacher,
    test_network,
    train_network,
)
from sartor.workflow.oracle import oracle
from sartor.workflow.ordering import order_report
from sartor.workflow.searching import budgets_of, describe_found, fits_task, follow_up, keep, search
from sartor.workflow.studying import complexity_study
from sartor.workflow.worth import found_space, space_report

__all__ = [
    "Fit",
    "Measured",
    "adapt",
    "budgets_of",
    "collapse_error",
    "compare",
    "complexity_study",
    "default_store",
    "describe_found",
    "design",
    "export_network",
    "fit",
    "fit_predictor",
    "fits_task",
    "follow_up",
    "for_task",
    "found_space",
    "keep",
    "load_architecture",
    "load_found",
    "load_network",
    "match_uniform",
    "measure_parts",
    "method_of",
    "opened",
    "oracle",
    "order_report",
    "remeasure",
    "remeasure_found",
    "remeasure_unfolded",
    "search",
    "space_report",
    "teacher",
    "test_network",
    "train_network",
]
