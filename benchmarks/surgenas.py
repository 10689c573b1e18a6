"""SurgeNAS: does the identity mapping keep skips from winning, and what does beta buy?

skips (must show 3, Fig. 3.13): beta = 0, with and without the identity mapping, 3 seeds: how many of the 21 layers end
as skips, and how the first six decide. Both networks are trained alike.

beta (must show 5, Fig. 3.15): searches that weigh latency by seven betas (loss per whole range of the
space's latencies, divided by it), the last one huge; what each costs by the
predictor, and, trained alike, how accurate it is.

Reduced: 2,000 images of Fashion-MNIST at 8 px, width 0.5, all 21 slots x 7 candidates, one beta search each; trained
on 6,000 images. Full: all images of CIFAR-10 (JPEG), 32 px, width 1, 3 seeds.

    python benchmarks/surgenas.py skips|beta [--full] [--only K]     # K of the cells, in order
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sartor
from accuracy import FULL as ACCURACY_FULL
from common import CACHE, Results, interval, parser
from landing import REDUCED as LANDING
from sartor import workflow
from sartor.choose.solve import reachable
from sartor.methods import SETTINGS
from sartor.predictors import load
from sartor.report.figures import decisions, tradeoff
from sartor.runs import Run, read_lines
from sartor.training.recipe import Recipe

FASHION = "fashion-mnist:{data}/fashion_mnist?resolution=8"
REDUCED = {
    "space": LANDING["space"],
    "data": f"{FASHION}&images=2000",
    "train": f"{FASHION}&images=6000",
    "predictor": "landing",
    "search": {"epochs": 16, "warmup_epochs": 5, "batch_size": 64, "lr": 0.05},
    "recipe": {"epochs": 16, "batch_size": 64, "evaluate_every": 0},
    "beta_seeds": [0],
}
FULL = {
    "space": ACCURACY_FULL["space"],
    "data": ACCURACY_FULL["data"],
    "train": ACCURACY_FULL["data"],
    "predictor": "accuracy_full",
    "search": {"epochs": 75, "warmup_epochs": 25},
    "recipe": ACCURACY_FULL["recipe"],
    "beta_seeds": [0, 1, 2],
}
SEEDS, BETAS = [0, 1, 2], [0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 1000.0]  # loss per whole range of latencies
DRAWN = 6
GOALS = {
    "skips": "layers that end as skips, with and without identity mapping, 3 seeds",
    "beta": "latency falls as beta grows; the largest ends with nothing but skips",
}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("experiment", choices=GOALS)
    options.add_argument("--only", type=int, help="one cell")
    given = options.parse_args()
    setting: dict[str, Any] = FULL if given.full else REDUCED
    torch.set_num_threads(torch.get_num_threads() if given.full else 1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    space = sartor.spaces.get(setting["space"])
    root = os.environ.get("SARTOR_DATA", "../shared/data")
    task, whole = (sartor.tasks.get(setting[name].format(data=root), device) for name in ("data", "train"))
    name = f"surgenas_{given.experiment}{'_full' if given.full else ''}"
    engine = SETTINGS["surgenas"](**setting["search"])
    what = {key: setting[key] for key in ("space", "data", "train", "recipe")}
    results = Results(name, GOALS[given.experiment], {**what, "search": engine.model_dump()})
    score: Any = None
    if given.experiment == "beta":
        score = load(CACHE / f"{setting['predictor']}.safetensors", space=space)  # the script of that name fits it
    recipe = Recipe().override(setting["recipe"])

    def searched(seed: int, **own: Any) -> dict[str, Any]:
        began = time.process_time()
        settings = {**setting["search"], **own}
        with tempfile.TemporaryDirectory() as scratch, Run(scratch, {"benchmark": name}, seed) as run:
            costs = {"objectives": [score]} if score is not None else {}
            found = sartor.search("surgenas", space, task, budget=[], run=run, **costs, **settings)
            lines = [e for f in sorted(Path(scratch).rglob("journal.jsonl")) for e in read_lines(f)]
        seconds = time.process_time() - began
        epochs = [line for line in lines if line["event"] == "epoch"]
        with tempfile.TemporaryDirectory() as scratch, Run(Path(scratch), {"b": name}, seed) as run:
            trained = workflow.train_network(space, found.architecture, whole, recipe, run)
        return {
            "architecture": list(found.architecture),
            "skips": found.extras["skips"],
            "collapsed": found.extras["collapsed"],
            "latency_ms": float(score([found.architecture])[0]) if score is not None else None,
            "accuracy": trained["value"],
            "macs": trained["macs"],
            "cpu_seconds": seconds,
            "loss": [round(line["loss"], 4) for line in epochs],
            "skips by epoch": [line["skips"] for line in epochs],
            "permille": [line["permille"][:DRAWN] for line in epochs],
        }

    if given.experiment == "skips":
        cells = [{"identity": phi, "seed": s} for s in SEEDS for phi in (engine.identity, 0.0)]
        own: list[dict[str, Any]] = [{"identity": cell["identity"], "beta": 0.0} for cell in cells]
    else:
        cells = [{"beta": beta, "seed": s} for s in setting["beta_seeds"] for beta in BETAS]
        low, high = reachable(space, score)
        own = [{"beta": cell["beta"] / (high - low)} for cell in cells]
    for i, (cell, more) in enumerate(zip(cells, own)):
        if given.only in (None, i):
            results.row(cell, lambda c=cell, o=more: searched(c["seed"], **o))
    key = "identity" if given.experiment == "skips" else "beta"
    rows = results.data["rows"]
    summary = []
    for value in dict.fromkeys(cell[key] for cell in cells):
        mine = [row for row in rows if row["cell"][key] == value]
        if not mine:
            continue
        row = {key: value, "seeds": len(mine), "skips, of 21 layers": [r["skips"] for r in mine]}
        if key == "beta":
            row["latency (ms)"] = float(np.mean([r["latency_ms"] for r in mine]))
            row["collapsed"] = sum(r["collapsed"] for r in mine)
        row["accuracy (%)"] = interval([r["accuracy"] for r in mine])
        row["MMACs"] = [round(r["macs"] / 1e6, 2) for r in mine]
        summary.append({**row, "cpu seconds": float(np.mean([r["cpu_seconds"] for r in mine]))})
    results.summarise(rows=summary)
    if given.experiment == "skips":
        draw(space, rows, name)
    else:
        draw_front(summary, name)


def draw(space: Any, rows: list[dict[str, Any]], name: str) -> None:
    """Fig. 3.13: how the first six layers decide, without and with the mapping, first seed."""
    out = Path(__file__).parent.parent / "docs" / "img"
    slots = [(slot.name, slot.candidates) for slot in space.slots[:DRAWN]]
    for row in rows:
        if row["cell"]["seed"] == SEEDS[0]:
            journal = [{"event": "epoch", "epoch": i, "permille": p} for i, p in enumerate(row["permille"])]
            kind = "with" if row["cell"]["identity"] else "without"
            decisions(journal, slots).savefig(out / f"{name}_{kind}_identity.svg", facecolor="white")


def draw_front(summary: list[dict[str, Any]], name: str) -> None:
    """Fig. 3.15: accuracy after equal training against latency, a point per beta."""
    points = [
        {
            "name": f"beta {row['beta']:g}",
            "cost": row["latency (ms)"],
            "value": row["accuracy (%)"]["mean"],
            "cost_metric": "latency_ms",
            "metric": "accuracy",
        }
        for row in summary
    ]
    drawn = tradeoff(points, how="predicted")
    drawn.savefig(Path(__file__).parent.parent / "docs" / "img" / f"{name}.svg", facecolor="white")


if __name__ == "__main__":
    main()
