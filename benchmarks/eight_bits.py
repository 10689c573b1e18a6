"""Searching for the 8-bit network, or quantising the winner of a search for the other, at equal 8-bit latency.

Must show (issue Beyond the classifier, 3). CIFAR-10 (JPEG), LightNAS in its MobileNet space, this CPU, ONNX Runtime.
Per limit and seed:

    fp32 first    a search within a limit of fp32 latency; what it finds is quantised
    int8          a search within the 8-bit latency that the quantised winner of `fp32 first` is predicted to have

Both are trained with one recipe and quantised with ranges from 512 training images; accuracy is that of the 8-bit
networks on all test images. All are measured in one sitting, on both targets; wants a quiet machine, as the fits do.
Differences are in pairs of one limit and seed, those within 3 % of 8-bit latency alone.

Reduced: 20 px, half the width, 10,000 images. Full: 32 px, width 1, all images, on a GPU. Floor: `fp32 first` as
trained.

    python benchmarks/eight_bits.py [--full] [--stage NAME] [--seed S ...] [--share X ...]
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import bench
import sartor
from common import interval, parser
from sartor import workflow
from sartor.choose.solve import reachable
from sartor.core import Architecture, Budget
from sartor.predictors import load
from sartor.runs import Run
from sartor.training.loop import train
from sartor.training.recipe import Recipe

SEEDS, SHARES, STAGES = (0, 1, 2), (0.6, 0.45, 0.8), ("fit", "search", "sitting", "train")
WAYS, EQUAL = ("fp32 first", "int8"), 0.03
REDUCED: dict[str, Any] = {
    "space": "mobilenet:cifar?width=0.5&resolution=20",
    "data": "parquet:{data}/cifar10?images=10000&resolution=20",
    "samples": 400,
    "search": {"epochs": 15, "warmup_epochs": 5, "batch_size": 64, "lr": 0.05},
    "recipe": {"epochs": 15, "batch_size": 64, "lr": 0.05, "evaluate_every": 0},
    "floor": 55.0,
}
FULL: dict[str, Any] = {
    "space": "mobilenet:cifar",
    "data": "parquet:{data}/cifar10",
    "samples": 1000,
    "search": {"epochs": 90, "warmup_epochs": 10, "batch_size": 128},
    "recipe": {"epochs": 60, "batch_size": 128, "lr": 0.1, "evaluate_every": 0},
    "floor": 90.0,
}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--stage", choices=STAGES, action="append", help="default all")
    options.add_argument("--seed", type=int, choices=SEEDS, action="append", help="default all")
    options.add_argument("--share", type=float, choices=SHARES, action="append", help="of the range, default all")
    given = options.parse_args()
    own = Bench(FULL if given.full else REDUCED, f"eight_bits{'_full' if given.full else ''}")
    cells = [{"share": share, "seed": seed} for share in given.share or SHARES for seed in given.seed or SEEDS]
    for stage in given.stage or STAGES:
        if stage == "fit":
            for precision in own.targets:
                own.row({"what": stage, "precision": precision}, partial(own.fit, precision))
        elif stage == "sitting":
            for share in given.share or SHARES:
                own.row({"what": stage, "share": share}, partial(own.sitting, share))
        elif stage == "search":
            for cell in cells:
                own.row({"what": stage, **cell}, partial(own.search, **cell))
        else:
            for cell in cells:
                for way in WAYS:
                    own.row({"what": stage, "way": way, **cell}, partial(own.trained, way, **cell))
    own.results.summarise(**summary(own.results.data["rows"], own.setting["floor"]))


class Bench(bench.Bench):
    """The stages; each reads the rows of those before it."""

    def __init__(self, setting: dict[str, Any], name: str) -> None:
        goal = "more accurate 8-bit networks at equal 8-bit latency than by quantising what was found for fp32"
        super().__init__(setting, name, goal, SEEDS, target=f"{bench.TARGET}&precision=int8", shares=SHARES)
        self.space: Any = sartor.spaces.get(setting["space"])
        self.targets = {"fp32": sartor.targets.get(bench.TARGET), "int8": self.target}

    def file(self, precision: str) -> Path:
        return self.files / f"latency-{precision}.safetensors"

    def fit(self, precision: str) -> dict[str, Any]:
        options: dict[str, Any] = {"samples": self.setting["samples"], "store": self.store}
        fit = workflow.fit_predictor("auto", self.space, self.targets[precision], **options)
        fit.predictor.save(self.file(precision))
        return {"default": fit.report["default"], "rows": fit.report["rows"]}

    def search(self, share: float, seed: int) -> dict[str, Any]:
        fp32, int8 = (load(self.file(precision), space=self.space) for precision in self.targets)
        low, high = reachable(self.space, fp32)
        limit = float(f"{low + share * (high - low):.3g}")
        first = self.found(Budget(fp32, limit), seed)
        within = float(int8([first])[0])
        second = self.found(Budget(int8, within), seed)
        return {
            "limits (ms)": {"fp32 first": limit, "int8": within},
            "fp32 first": list(first),
            "int8": list(second),
            "predicted int8 (ms)": {"fp32 first": within, "int8": float(int8([second])[0])},
        }

    def found(self, budget: Budget, seed: int) -> Architecture:
        with tempfile.TemporaryDirectory() as scratch, Run(Path(scratch) / "run", {"of": "eight bits"}, seed) as run:
            found = sartor.search("lightnas", self.space, self.task, budget=budget, run=run, **self.setting["search"])
        return found.architecture

    def sitting(self, share: float) -> dict[str, Any]:
        """Per precision, seed and way."""
        archs = {
            (seed, way): tuple(self.needed(what="search", share=share, seed=seed)[way])
            for seed in SEEDS
            for way in WAYS
        }
        out: dict[str, Any] = {}
        for precision, target in self.targets.items():
            ms = self.times([(self.space, arch) for arch in archs.values()], f"winners {share}", target)
            out[precision] = [[*key, value] for key, value in zip(archs, ms)]
        return out

    def trained(self, way: str, share: float, seed: int) -> dict[str, Any]:
        arch, recipe = tuple(self.needed(what="search", share=share, seed=seed)[way]), Recipe()
        with tempfile.TemporaryDirectory() as scratch, Run(Path(scratch) / "run", {"of": "eight bits"}, seed) as run:
            torch.manual_seed(run.torch_seed("weights"))
            network = self.space.network(arch)
            train(network, self.task, recipe.override(self.setting["recipe"]), run.stage("train"))
            deployed, inputs = self.space.deploy(network.cpu()), self.space.inputs(1)
            told = workflow.export_network(deployed, inputs, Path(scratch) / "export", ["int8"], {}, self.task)
        return {"fp32": told["value"], "int8": told["value_int8"]}


def summary(rows: list[dict[str, Any]], floor: float) -> dict[str, Any]:
    """A line per share, and one over all, of pairs whose latency is equal."""
    trained = {(c["share"], c["seed"], c["way"]): row for row in rows if (c := row["cell"])["what"] == "train"}
    sat = {row["cell"]["share"]: row for row in rows if row["cell"]["what"] == "sitting"}
    ms = {
        (share, seed, way, precision): value
        for share, row in sat.items()
        for precision in ("fp32", "int8")
        for seed, way, value in row[precision]
    }
    lines, every = [], []
    for share in SHARES:
        seeds = [s for s in SEEDS if all((share, s, way) in trained for way in WAYS) and share in sat]
        pairs = []
        for seed in seeds:
            slower = ms[share, seed, "int8", "int8"] / ms[share, seed, "fp32 first", "int8"] - 1
            apart = {
                p: trained[share, seed, "int8"][p] - trained[share, seed, "fp32 first"][p] for p in ("fp32", "int8")
            }
            pairs.append({"seed": seed, "slower (%)": 100 * slower, **apart})
        equal = [pair for pair in pairs if abs(pair["slower (%)"]) <= 100 * EQUAL]
        every += equal
        if not seeds:
            continue
        lines.append(
            {
                "share": share,
                **{
                    f"{way}: {what}": interval([trained[share, seed, way][what] for seed in seeds])
                    for way in WAYS
                    for what in ("fp32", "int8")
                },
                **{f"{way} (int8 ms)": float(np.mean([ms[share, s, way, "int8"] for s in seeds])) for way in WAYS},
                "pairs": pairs,
            }
        )
    told: dict[str, Any] = {"rows": lines, "equal pairs": len(every)}
    if len(every) > 1:
        gain = interval([pair["int8"] for pair in every])
        told["int8 search less fp32 first (points)"] = gain
        told["verdict"] = "better" if gain["low"] > 0 else "worse" if gain["high"] < 0 else "undecided"
    base = [row["fp32"] for (_, _, way), row in trained.items() if way == "fp32 first"]
    return {**told, "floor reached": float(np.mean(base)) >= floor if base else None}


if __name__ == "__main__":
    main()
