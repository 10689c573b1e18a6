"""MathNAS on networks that are trained here: a supernet, what is predicted of its sub-networks, a search, a training.

Must show 6, one space at a time, on real data, in a reduced width: never fewer slots or candidates. CIFAR-10 is a lossy
JPEG copy; text is Multi30k, English to German, graded by BLEU.

1. supernet: trained by the sandwich rule; its largest network has to reach a floor on `valid`.
2. sub-networks drawn uniformly and graded on `valid` by the weights that they share; what predicts that: block tables
   (Algorithm 1), the estimate from answers about others, and multiply-accumulates alone, which have to be beaten.
   Intervals are of resampled networks, for one supernet. Where a slot has thousands of blocks, tables are of `few` a
   unit, spread over multiply-accumulates, as the paper's Figure 1 has 5 a unit.
3. search: within a budget of multiply-accumulates, by the estimate, and by block tables over the `few`; the program's
   status says whether its optimum is proven. What the estimate's search found and random networks of the same
   multiply-accumulates are trained from scratch and tested. Reduced: one each, so that a ranking is undecided. Full:
   three, and the difference is ranked if its 95 % interval excludes zero; of one supernet and one search.

Reduced: at most two hours on one core; with 10 epochs in batches of 128 SuperViT stayed below its floor. Full: all
data, 32 px, width 1, on a GPU.

    python benchmarks/mathnas_networks.py mobilenetv3|supervit|supertransformer [--full] [--stage search|train]
                                          [--network found|random] [--seed S]
    python benchmarks/mathnas_networks.py figure     # docs/img/mathnas_networks.svg from the results
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sartor
from common import CACHE, RESULTS, Results, interval, parser
from sartor import workflow
from sartor.core import METRICS, Architecture, F, Score, SearchSpace, Task, TermScore
from sartor.core.restricted import Restricted
from sartor.methods import METHODS
from sartor.predictors.evaluate import quality
from sartor.quality.blocks import additive_macs, base_network, block_score
from sartor.quality.estimate import Estimate
from sartor.quality.supernet import Remembered
from sartor.report.style import BLUE, INK, MUTED, canvas, quiet, styled
from sartor.report.values import known
from sartor.runs import Run, read_json
from sartor.training.recipe import Recipe
from sartor.training.tasks import for_search

SEED, DRAWN, RESAMPLED = 0, 200, 1000
STAGES, NETWORKS = ("search", "train"), ("found", "random")
KEPT = ("macs", "params", "epochs", "loss")  # of a training
NEAR = 0.02  # how far multiply-accumulates of the random network may be from those of the network found
MODES = {"block tables": "per_block", "block tables without MACs": "none"}
GOAL = "largest network reaches the floor; order of 200 sub-networks predicted better than by MACs; program optimal"
REDUCED: dict[str, dict[str, Any]] = {
    "mobilenetv3": {
        "space": "mobilenetv3:cifar?width=0.25&resolution=16",
        "data": "parquet:{data}/cifar10?images=37500&resolution=16",
        "floor": 60.0,
        "few": 5,
        "share": 0.4,
        "search": {
            "epochs": 12,
            "batch_size": 64,
            "lr": 0.03,
            "queries": 200,
            "calibration": 2,
            "valid_batches": 4,
        },
        "recipe": {"epochs": 5, "batch_size": 64, "lr": 0.05, "evaluate_every": 0},
    },
    "supervit": {
        "space": "supervit:cifar?width=0.25&resolution=16",
        "data": "parquet:{data}/cifar10?images=37500&resolution=16",
        "floor": 60.0,
        "few": None,
        "share": 0.4,
        "search": {"epochs": 20, "batch_size": 64, "lr": 0.0015, "queries": 200, "calibration": 2, "valid_batches": 4},
        "recipe": {"epochs": 5, "batch_size": 128, "optimiser": "adamw", "lr": 0.002, "evaluate_every": 0},
    },
    "supertransformer": {
        "space": "supertransformer?source=2000&target=2000&width=0.125&dropout=0",
        "data": "multi30k:{data}/multi30k?vocabulary=2000&length=30",
        "floor": 15.0,
        "few": None,
        "share": 0.4,
        "search": {"epochs": 4, "batch_size": 64, "lr": 0.002, "queries": 200, "valid_batches": 3},
        "recipe": {"epochs": 4, "batch_size": 64, "optimiser": "adamw", "lr": 0.002, "evaluate_every": 0},
    },
}
FULL: dict[str, dict[str, Any]] = {
    "mobilenetv3": {
        "space": "mobilenetv3:cifar",
        "data": "parquet:{data}/cifar10",
        "floor": 85.0,
        "few": 5,
        "share": 0.4,
        "seeds": 3,
        "search": {"epochs": 12, "batch_size": 256, "lr": 0.1, "queries": 200, "valid_batches": 10},
        "recipe": {"epochs": 10, "batch_size": 256, "lr": 0.1, "evaluate_every": 0},
    },
    "supervit": {
        "space": "supervit:cifar",
        "data": "parquet:{data}/cifar10",
        "floor": 75.0,
        "few": None,
        "share": 0.4,
        "seeds": 3,
        "search": {"epochs": 40, "batch_size": 256, "lr": 0.001, "queries": 200, "valid_batches": 10},
        "recipe": {"epochs": 40, "batch_size": 256, "optimiser": "adamw", "lr": 0.001, "evaluate_every": 0},
    },
    "supertransformer": {
        "space": "supertransformer?source=8000&target=8000",
        "data": "multi30k:{data}/multi30k?vocabulary=8000",
        "floor": 30.0,
        "few": None,
        "share": 0.4,
        "seeds": 3,
        "search": {"epochs": 14, "batch_size": 256, "lr": 0.0002, "queries": 200, "valid_batches": 4},
        "recipe": {"epochs": 14, "batch_size": 256, "optimiser": "adamw", "lr": 0.0002, "evaluate_every": 0},
    },
}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("space", choices=[*FULL, "figure"])
    options.add_argument("--stage", choices=STAGES, help="one stage")
    options.add_argument("--network", choices=NETWORKS, help="train one of these; several processes fill one file")
    options.add_argument("--seed", type=int, help="train with one seed")
    given = options.parse_args()
    if given.space == "figure":
        picture([read_json(file) for name in FULL if (file := RESULTS / f"mathnas_{name}.json").exists()])
        return
    setting = (FULL if given.full else REDUCED)[given.space]
    torch.set_num_threads(torch.get_num_threads() if given.full else 1)
    torch.set_float32_matmul_precision("high")
    space: Any = sartor.spaces.get(setting["space"])
    root = os.environ.get("SARTOR_DATA", "../shared/data")
    task = sartor.tasks.get(setting["data"].format(data=root), "cuda" if torch.cuda.is_available() else "cpu")
    name = f"mathnas_{given.space}{'_full' if given.full else ''}"
    job = {**setting, "data_name": task.describe(), "seed": SEED, "drawn": DRAWN, "modes": MODES}
    results = Results(name, GOAL, job)
    if given.stage != "train":
        with Run(CACHE / name, {"benchmark": name, **setting}, SEED) as run:
            Experiment(space, task, setting, results, run).all()
    if given.stage != "search":
        for seed in range(setting.get("seeds", 1)) if given.seed is None else [given.seed]:
            for network in NETWORKS if given.network is None else [given.network]:
                cell = {"what": "train", "network": network, "seed": seed}
                results.row(cell, partial(trained, network, seed, space, task, setting, results))
                results.summarise(**summary(results))


class Experiment:
    """What is done with one space before networks of it are trained alone, resumed where it stopped."""

    def __init__(self, space: SearchSpace, task: Task, setting: dict[str, Any], results: Results, run: Run) -> None:
        self.space, self.task, self.setting, self.results, self.run = space, task, setting, results, run
        self.macs, few = additive_macs(space), setting["few"]
        self.window = space if few is None else space.restrict(spread(self.macs.unary, few))
        began = time.process_time()
        engine = METHODS["mathnas"].of(setting["search"])
        stage = run.stage("search")  # the search finds this supernet, and what it was asked about
        self.actual = Remembered(engine.oracle(space, [], stage, for_search(task)), stage)
        self.trained_in = time.process_time() - began

    def all(self) -> None:
        """Every step that is not done yet; the summary is of what there is."""
        steps: list[tuple[dict[str, Any], Callable[[], dict[str, Any]]]] = [
            ({"what": "supernet"}, self.supernet),
            ({"what": "blocks"}, self.blocks),
            ({"what": "estimate"}, self.estimate),
            *(({"what": "search", "by": by}, partial(self.search, by)) for by in ("blocks", "estimate")),
        ]
        for cell, compute in steps:
            self.results.row(cell, compute)
            self.results.summarise(**summary(self.results))

    # ------------------------------------------------------------------ steps

    def supernet(self) -> dict[str, Any]:
        largest, smallest = self.actual(self.ends()).tolist()
        floor = self.setting["floor"]
        return {
            "metric": self.task.metric.name,
            "largest": largest,
            "smallest": smallest,
            "macs": self.macs(self.space, self.ends()).tolist(),
            "floor": floor,
            "floor reached": largest >= floor,
            "loss": [e["loss"] for e in self.run.stage("search").stage("supernet").journal() if e["event"] == "epoch"],
            "cpu_seconds": self.trained_in,  # of the last sitting
        }

    def blocks(self) -> dict[str, Any]:
        """Block tables of the window, and random networks of it."""
        macs, asked = additive_macs(self.window), Asked(self.actual, self.window)
        said: dict[str, Score] = {}
        for name, mode in {**MODES, "block tables, MACs where measured": "context"}.items():
            said[name] = block_score(self.window, asked, macs, mode=mode)  # type: ignore[arg-type]
        archs = different(self.window, DRAWN, self.run.rng("drawn", "window"), set(asked.seen))
        return {"asked": len(asked.seen), **self.compared(self.window, archs, said)}

    def estimate(self) -> dict[str, Any]:
        """The estimate from random networks, and others."""
        count = self.setting["search"]["queries"]
        archs = different(self.space, count + DRAWN, self.run.rng("drawn"))
        known, rest = archs[:count], archs[count:]
        learned = Estimate(self.space, known, self.actual(known), metric=self.actual.metric)
        row = self.compared(self.space, rest, {"estimate": learned})
        return {"asked": count, "explained": learned.explained, "weights": learned.weights, **row}

    def compared(self, space: SearchSpace, archs: Sequence[Architecture], by: dict[str, Score]) -> dict[str, Any]:
        """What each score says of networks, beside their grades and multiply-accumulates."""
        actual, macs = Asked(self.actual, space)(archs), counted(space)(archs)
        said = {name: score(archs) for name, score in by.items()}
        rng = self.run.rng("resampled", space.name)
        figures = {name: figures_of(values, actual, rng) for name, values in said.items()}
        alone = figures_of(macs, actual, rng)
        del alone["RMSE"]
        return {
            "actual": actual.round(3).tolist(),
            "macs": macs.tolist(),
            "predicted": {name: values.round(3).tolist() for name, values in said.items()},
            "figures": figures | {f"MACs alone, beside {next(iter(by))}": alone},
            "spread": {"lowest": float(actual.min()), "highest": float(actual.max()), "std": float(actual.std())},
        }

    def search(self, by: str) -> dict[str, Any]:
        """By the method itself; what it asks about is what was asked already."""
        began = time.process_time()
        high, low = self.macs(self.space, self.ends()).tolist()
        space = self.window if by == "blocks" else self.space
        cost = counted(space)
        budget = cost.at(f"{(low + self.setting['share'] * (high - low)) / 1e6:.3g}MMACs")
        settings = {**self.setting["search"], "predictor": by}
        if by == "blocks":
            with tempfile.TemporaryDirectory() as scratch, Run(scratch, {"benchmark": by}, SEED) as run:
                asked = [Asked(self.actual, space)]
                found = sartor.search("mathnas", space, None, budget=budget, objectives=asked, run=run, **settings)
        else:
            found = sartor.search("mathnas", space, self.task, budget=budget, run=self.run, **settings)
        arch, best = found.architecture, found.argmax.architecture
        return {
            "architecture": list(arch),
            "status": found.extras["program"],
            "landing": found.winner.status,
            "macs": float(cost([arch])[0]),
            "limit": budget.limit,
            "supernet answer": float(Asked(self.actual, space)([arch])[0]),
            "of the program": {
                "architecture": list(best),
                "predicted": found.extras["predicted"],
                "supernet answer": float(Asked(self.actual, space)([best])[0]),
            },
            "cpu_seconds": time.process_time() - began,
        }

    def ends(self) -> list[Architecture]:
        """The largest network and the smallest."""
        return [base_network(self.space, macs) for macs in (self.macs, self.macs.times(-1.0))]


def trained(
    network: str, seed: int, space: SearchSpace, task: Task, setting: dict[str, Any], results: Results
) -> dict[str, Any]:
    """One training from scratch, of the network found or of a random one beside it, and its test."""
    found: Any = results.get({"what": "search", "by": "estimate"})
    began = time.process_time()
    with tempfile.TemporaryDirectory() as scratch, Run(Path(scratch), {"benchmark": "train"}, seed) as run:
        arch = tuple(found["architecture"]) if network == "found" else beside(space, found["macs"], run)
        result: Any = workflow.train_network(space, arch, task, Recipe().override(setting["recipe"]), run)
    spent = {"cpu_seconds": time.process_time() - began}
    return {"architecture": list(arch), "test": result["value"], **{k: result[k] for k in KEPT}, **spent}


def beside(space: SearchSpace, macs: float, run: Run) -> Architecture:
    """The first random network with about these multiply-accumulates, and no more."""
    rng, counts = run.rng("random"), additive_macs(space)
    while True:
        (arch,) = space.sample(rng, 1)
        if (1.0 - NEAR) * macs <= counts(space, [arch])[0] <= macs:
            return arch


def summary(results: Results) -> dict[str, Any]:
    """Of the rows that there are."""
    rows = [(row["cell"], row) for row in results.data["rows"]]
    supernet: Any = results.get({"what": "supernet"})
    told = [row for cell, row in rows if cell["what"] in ("blocks", "estimate")]
    tests = {n: {c["seed"]: r for c, r in rows if c.get("network") == n} for n in NETWORKS}
    apart = [tests["found"][s]["test"] - tests["random"][s]["test"] for s in tests["found"] if s in tests["random"]]
    finished = all(len(of) == results.data["settings"].get("seeds", 1) for of in tests.values())
    difference = interval(apart) if len(apart) > 1 else None
    decided = difference is not None and (difference["low"] > 0 or difference["high"] < 0)
    return {
        "rows": [
            {"predictor": name, "answers": row["asked"], **figures}
            for row in told
            for name, figures in row["figures"].items()
        ],
        "supernet": {key: supernet[key] for key in ("largest", "smallest", "floor", "floor reached")},
        "searches": [
            {"predictor": cell["by"], **{key: row[key] for key in ("status", "macs", "limit", "supernet answer")}}
            for cell, row in rows
            if cell["what"] == "search"
        ],
        "networks": [
            {
                "network": name,
                "seeds": len(of),
                "test": interval([r["test"] for r in of.values()]) if len(of) > 1 else next(iter(of.values()))["test"],
                **{key: float(np.mean([r[key] for r in of.values()])) for key in ("macs", "params", "epochs")},
            }
            for name, of in tests.items()
            if of
        ],
        "found above random": difference,
        "verdict": ("decided" if decided else "undecided") if finished else "unfinished",
    }


class Asked(Score):
    """A score of networks of a space, asked about a sub-space; notes what was asked."""

    def __init__(self, score: Score, space: SearchSpace) -> None:
        self.score, self.space, self.metric = score, space, score.metric
        self.seen: list[Architecture] = []

    def __call__(self, archs: Sequence[Sequence[int]]) -> F:
        self.seen += [a for arch in archs if (a := self.space.canonical(arch)) not in self.seen]
        lifts = self.space.lift if isinstance(self.space, Restricted) else self.space.canonical
        return self.score([lifts(arch) for arch in archs])


def counted(space: SearchSpace) -> Score:
    """Multiply-accumulates with terms, so that programs are solved exactly."""
    return TermScore(space, METRICS["macs"], additive_macs(space))


def spread(costs: Sequence[F], few: int) -> dict[int, list[int]]:
    """Per slot: the candidates closest to `few` costs from the least to the most, in equal steps."""
    steps = [np.linspace(cost.min(), cost.max(), few) for cost in costs]
    return {i: [int(np.argmin(np.abs(cost - at))) for at in row] for i, (cost, row) in enumerate(zip(costs, steps))}


def different(
    space: SearchSpace, count: int, rng: np.random.Generator, known: set[Architecture] | None = None
) -> list[Architecture]:
    """Random networks, uniform over the space, all different and none of the known."""
    found: dict[Architecture, None] = {}
    while len(found) < count:
        found |= dict.fromkeys(arch for arch in space.sample(rng, count) if arch not in (known or ()))
    return list(found)[:count]


def figures_of(predicted: F, actual: F, rng: np.random.Generator) -> dict[str, Any]:
    """Spearman, Kendall and RMSE with the 95 % intervals of resampled networks."""
    names = {"Spearman": "spearman", "Kendall": "kendall", "RMSE": "rmse"}
    whole = quality(predicted, actual)
    draws = [rng.integers(len(actual), size=len(actual)) for _ in range(RESAMPLED)]
    again = [quality(predicted[d], actual[d]) for d in draws]
    out: dict[str, Any] = {"networks": len(actual)}
    for name, key in names.items():
        low, high = np.quantile([q[key] for q in again], [0.025, 0.975])
        out[name] = {"mean": whole[key], "low": float(low), "high": float(high)}
    return out


# ---------------------------------------------------------------------- picture


@styled
def scatter(data: Sequence[dict[str, Any]]) -> Any:
    """Predicted against graded by the supernet: a row per space, a column per predictor."""
    figure = canvas(0.4 + 3.3 * len(data), 7.4)
    grid = figure.subplots(len(data), 2, squeeze=False)
    for row, result in zip(grid, data):
        for ax, (what, name) in zip(row, (("blocks", "block tables"), ("estimate", "estimate"))):
            found = next(r for r in result["rows"] if r["cell"]["what"] == what)
            truth, said = np.array(found["actual"]), np.array(found["predicted"][name])
            ends = np.array([min(truth.min(), said.min()) - 1, max(truth.max(), said.max()) + 1])
            quiet(ax, grid="both").set_aspect("equal", adjustable="box")
            ax.plot(ends, ends, color=INK, linewidth=0.8, alpha=0.8)
            ax.scatter(truth, said, s=13, color=BLUE, alpha=0.75, linewidths=0)
            rho = found["figures"][name]["Spearman"]["mean"]
            space, label = result["benchmark"].removeprefix("mathnas_"), known(result["rows"][0]["metric"]).label
            ax.set_title(f"{space}: {name}", loc="left")
            told = f"{found['asked']} answers, {len(truth)} others\nSpearman {rho:.2f}"
            ax.text(0.03, 0.97, told, transform=ax.transAxes, va="top", color=MUTED)
            ax.set(xlim=ends, ylim=ends, xlabel=f"{label}, graded by the supernet", ylabel=f"predicted {label}")
    return figure


def picture(data: Sequence[dict[str, Any]]) -> None:
    out = Path(__file__).parent.parent / "docs" / "img" / "mathnas_networks.svg"
    scatter(data).savefig(out, facecolor="white")


if __name__ == "__main__":
    main()
