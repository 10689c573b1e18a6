"""What the supernet of a search says of networks beside what is true of them, before and after it was shifted."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from sartor.core import Architecture, F, Json, Score, SearchSpace, Task, UserError
from sartor.runs import Run
from sartor.workflow.networks import load_architecture
from sartor.workflow.searching import budgets_of_run

logger = logging.getLogger("sartor")
_TRIES = 50  # draws of as many networks as are wanted


def order_report(
    source: Path, truth: Score, task: Task, run: Run, *, networks: int = 100, best: int = 10, table: bool
) -> dict[str, Json]:
    """Kendall's tau of a search's supernets against `truth`, over random networks and among the best of them.

    source: run of `spos` or `supernet-shifting`; networks: drawn at random (global); best: how many are the best
    (local), of the whole space where truth is a `table` of it, else of those drawn. All are within the limits that the
    search had. A supernet from other data, with a new classifier, has no "before". Grades, and what is trained
    for the truth, are kept in the run. Raises UserError for a run without a supernet, and for one that lacks the
    predictor of a limit.
    """
    from sartor.methods.supernet_shifting import SHIFTED
    from sartor.quality.order import kendall
    from sartor.quality.sampling import admissible
    from sartor.quality.saved import of_run
    from sartor.quality.supernet import Remembered
    from sartor.quality.transfer import of_data

    space, _ = load_architecture(source)
    budgets, rng = budgets_of_run(source, space), run.rng("networks")
    drawn: list[Architecture] = []
    for _ in range(_TRIES):
        if len(drawn) < networks:
            drawn = list(dict.fromkeys([*drawn, *admissible(space.sample(rng, networks), budgets)]))[:networks]
    asked = Remembered(truth, run.stage("truth"))
    true = asked(drawn)
    top = (
        _best(admissible(list(space.enumerate()), budgets), truth, best)
        if table
        else [drawn[i] for i in np.argsort(-_signed(true, truth))[:best]]
    )
    true_top = asked(top)
    if len(drawn) < 2 or np.isfinite(true).sum() < 2:
        raise UserError("the truth about fewer than two of the networks drawn is known; give more --networks.")
    file = of_run(str(source))
    files = {"before": file, "after": file.with_name(SHIFTED)}
    rows, points = [], {}
    for name, saved in files.items():
        if not saved.exists():
            continue
        if name == "before" and not of_data(saved, task):
            logger.info("before the search the classifier knew nothing of these data: that supernet is left out")
            continue
        score = Remembered(_grader(space, saved, task), run.stage(name))
        said, said_top = score(drawn), score(top)
        rows.append({"supernet": name, "global": kendall(said, true), "local": kendall(said_top, true_top)})
        points[name] = {"said": said.tolist(), "said of the best": said_top.tolist()}
    return {
        "metric": truth.metric.name,
        "best": len(top),
        "rows": rows,
        "points": {"true": true.tolist(), "true of the best": true_top.tolist(), **points},
    }


def _signed(values: F, truth: Score) -> F:
    return np.nan_to_num(values if truth.metric.better == "more" else -values, nan=-np.inf)


def _best(every: list[Architecture], truth: Score, count: int) -> list[Architecture]:
    return [every[i] for i in np.argsort(-_signed(truth(every), truth), kind="stable")[:count]]


def _grader(space: SearchSpace, file: Path, task: Task) -> Score:
    from sartor.quality.supernet import SupernetScore
    from sartor.quality.transfer import load

    supernet: Any = space.supernet()
    load(supernet, file)
    return SupernetScore(space, supernet.to(task.device).eval(), task)
