"""Methods and predictors on tables with known answers: methods ask, tables grade."""

from sartor.bench.asking import ASKING, BASELINES, Asked
from sartor.bench.grading import Job, compare_methods
from sartor.bench.predicting import Cautious, Earned, compare_predictors

__all__ = ["ASKING", "BASELINES", "Asked", "Cautious", "Earned", "Job", "compare_methods", "compare_predictors"]
