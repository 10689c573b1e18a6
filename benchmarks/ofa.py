"""OFA MobileNetV3: what a third of 1,472 measured ImageNet accuracies tells of the rest, and a joint search.

Must show (issue MathNAS, 5): blocks described by depth, kernels and expansions (`Slot.features`); Spearman and RMSE on
the two thirds not fitted on. The networks were drawn by searches, so they are biased towards good ones.

The slots of the table are layers, not units of 7,371 blocks, so that one-hot columns of them do as well as factored
ones.

Then the best network by accuracy at 224 pixels within 100 random limits on the measured latency of a batch of 1 and of
64 (titan_rtx), both scores fitted on their own tables, resolution a feature of the latency: proven optimal, and how
long that takes. No network of it was built or measured: what is found is predicted.

    python benchmarks/ofa.py [--seed S]
    python benchmarks/ofa.py figure     # docs/img/mathnas_front.svg: the front, and search time against the limit
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from common import RESULTS, Results, interval, parser
from sartor import tables
from sartor.choose.exact import maximise
from sartor.choose.solve import reachable
from sartor.core import METRICS, F, SearchSpace, Slot, Terms, TermScore
from sartor.predictors.evaluate import quality
from sartor.predictors.pairs import Pairs
from sartor.predictors.ridge import Ridge
from sartor.quality.estimate import Estimate
from sartor.report.style import BLUE, VERMILLION, canvas, legend_above, quiet, styled
from sartor.runs import read_json
from sartor.spaces.tabled import OFA_RESOLUTIONS, Tabled

SEEDS, LIMITS = 10, 100
ACCURACY, LATENCY = METRICS["accuracy"], METRICS["latency_ms"]


def one_hot(space: SearchSpace) -> SearchSpace:
    """The same slots, of whose candidates nothing is known."""
    return Tabled(space.name, (Slot(s.name, s.candidates, None, s.when) for s in space.slots))


def main() -> None:
    options = parser(__doc__)
    options.add_argument("what", nargs="?", choices=["measure", "figure"], default="measure")
    options.add_argument("--seed", type=int, choices=range(SEEDS), help="one seed")
    given = options.parse_args()
    if given.what == "figure":
        out = RESULTS.parent.parent / "docs" / "img" / "mathnas_front.svg"
        picture(read_json(RESULTS / "ofa.json")["rows"]).savefig(out, facecolor="white")
        return
    torch.set_num_threads(1)
    root = os.environ.get("SARTOR_DATA", "../shared/data")
    known = tables.load("ofa-mobilenetv3", f"{root}/ofa_mobilenetv3_imagenet_top1.csv")
    timed = tables.load("ofa-mobilenetv3", f"{root}/ofa_mobilenetv3_latency.parquet")
    space, archs, values = known.space, list(known.row), known.columns["top1"]
    results = Results(
        "ofa",
        "Spearman and RMSE on two thirds of the networks, fitted on a third; factored ridge .99, one-hot .90",
        {"seeds": SEEDS, "networks": len(archs), "fitted on": len(archs) // 3, "limits": LIMITS},
    )

    def ridge(of: SearchSpace) -> Callable[..., Any]:
        return lambda a, v: Ridge().fit(of, a, v, metric=ACCURACY)

    makers: dict[str, Callable[..., Any]] = {
        "ridge, factored": ridge(space),
        "ridge, one-hot": ridge(one_hot(space)),
        "pairs, factored": lambda a, v: Pairs().fit(space, a, v, metric=ACCURACY),
        "estimate (ranks, stacked)": lambda a, v: Estimate(space, a, v, metric=ACCURACY),
    }

    def held_out(name: str, seed: int) -> dict[str, Any]:
        order = np.random.default_rng(seed).permutation(len(archs))
        fit, rest = order[: len(archs) // 3], order[len(archs) // 3 :]
        began = time.process_time()
        fitted = makers[name]([archs[i] for i in fit], values[fit])
        seconds = time.process_time() - began
        return {**quality(fitted([archs[i] for i in rest]), values[rest]), "cpu_seconds": seconds}

    for column in ("titan_rtx_1_ms", "titan_rtx_64_ms"):
        results.row({"joint search": column}, lambda c=column: joint(space, archs, values, timed, c))
        results.summarise(**summary(results, list(makers)))
    for name in makers:
        for seed in range(SEEDS) if given.seed is None else [given.seed]:
            results.row({"accuracy": name, "seed": seed}, lambda n=name, s=seed: held_out(n, s))
            results.summarise(**summary(results, list(makers)))


def summary(results: Results, names: list[str]) -> dict[str, Any]:
    """Of the rows that there are."""
    rows = results.data["rows"]
    accuracy = []
    for name in names:
        mine = [row for row in rows if row["cell"].get("accuracy") == name]
        figures = {"Spearman": "spearman", "RMSE (points)": "rmse", "Kendall": "kendall"}
        if mine:
            accuracy.append(
                {
                    "predictor": name,
                    "seeds": len(mine),
                    **{label: interval([row[key] for row in mine]) for label, key in figures.items()},
                    "cpu seconds": float(np.mean([row["cpu_seconds"] for row in mine])),
                }
            )
    found = [{"latency of": row["cell"]["joint search"], **row["figures"]} for row in rows if "figures" in row]
    return {"accuracy": accuracy, "joint search": found}


def joint(space: SearchSpace, archs: Any, values: F, timed: Any, column: str) -> dict[str, Any]:
    """The best by accuracy within each limit, at 224 pixels."""
    accuracy = Ridge().fit(space, archs, values, metric=ACCURACY).terms()
    whole = np.flatnonzero(np.isfinite(timed.columns[column]))
    rows = list(timed.row)
    cost = Ridge().fit(space, [rows[i] for i in whole], timed.columns[column][whole], metric=LATENCY).terms()
    full = space.restrict({0: [OFA_RESOLUTIONS.index(224)]})
    at = [Terms(t.const, (t.unary[0][[OFA_RESOLUTIONS.index(224)]], *t.unary[1:])) for t in (accuracy, cost)]

    low, high = reachable(full, TermScore(full, LATENCY, at[1]))
    out = []
    for seed in range(LIMITS):
        limit = low + (high - low) * float(np.random.default_rng([seed, 1]).uniform(0.05, 0.95))
        began = time.perf_counter()
        found = maximise(full, at[0], [(at[1], -np.inf, limit)])
        seconds = time.perf_counter() - began
        value = float(at[0](full, [found.architecture])[0]) if found.architecture else None
        out.append({"limit_ms": limit, "accuracy": value, "status": found.status, "seconds": seconds})
    good = [row for row in out if row["status"] == "optimal"]
    figures = {
        "reachable (ms)": [low, high],
        "proven optimal": len(good),
        "seconds, median": float(np.median([row["seconds"] for row in out])),
        "seconds, most": max(row["seconds"] for row in out),
    }
    return {"figures": figures, "limits": out}


@styled
def picture(rows: Any) -> Any:
    """Left: the front. Right: search time against the limit (MathNAS, appendix, Fig. 6a)."""
    figure = canvas(2.9)
    left, right = figure.subplots(1, 2)
    marks = (("titan_rtx_1_ms", "batch of 1", BLUE, "o"), ("titan_rtx_64_ms", "batch of 64", VERMILLION, "D"))
    for column, label, colour, marker in marks:
        limits = next(row["limits"] for row in rows if row["cell"].get("joint search") == column)
        limits = sorted((row for row in limits if row["accuracy"] is not None), key=lambda row: row["limit_ms"])
        x = [row["limit_ms"] / limits[-1]["limit_ms"] for row in limits]
        style: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 3, "label": label}
        left.plot(x, [row["accuracy"] for row in limits], linewidth=1.2, **style)
        right.plot(x, [1e3 * row["seconds"] for row in limits], linestyle="", **style)
    for ax in (quiet(left, grid="both"), quiet(right, grid="both")):
        ax.set_xlabel("limit over the largest limit")
        legend_above(ax)
    left.set_ylabel("best predicted accuracy (%)")
    right.set_ylabel("time to a proven optimum (ms)")
    right.set_yscale("log")
    return figure


if __name__ == "__main__":
    main()
