"""A supernet on other data: what a transferred search finds, what it costs, and whether orders agree across data sets.

Must show (issue Supernet Shifting, 3 and 5b). The space of NAS-Bench-Macro; CIFAR-10 (JPEG) and Fashion-MNIST in RGB,
both ways. Per seed and data:

    scratch      SPOS: a supernet trained on the data, then evolution
    shifted      Supernet Shifting from the other data's supernet with a new classifier, few visits: a tenth of the cost
    warmed up    the same, its classifier trained alone before
    not shifted  the same as `warmed up`, at a rate of 0: does the shift do anything?
    kept         what SPOS found on the other data, which costs nothing
    random       three networks within the limit, their mean

What each finds is trained alone on the data, all alike, and tested. As good is called what is not a point worse than
`scratch` with 95 % confidence, in pairs of one seed. Cost: images that were trained on (of the search,
without the training of what it found), images graded, and CPU seconds on this machine.

Order: the same random networks graded by the supernets of both data sets. Kendall's tau over all, and over the ten that
the first data set's supernet grades best; and those ten beside ten others, trained alike on the second.

Reduced: width, resolution and images. Full: 32 px, all images, on a GPU. Floor: what random networks have to reach,
trained alone.

    python benchmarks/transfer.py [--full] [--to NAME] [--seed S ...] [--what NAME ...]
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sartor
from common import CACHE, Results, interval, parser
from sartor.core import Architecture, Budget
from sartor.predictors.evaluate import quality
from sartor.quality.saved import FILE
from sartor.quality.supernet import SupernetScore
from sartor.quality.transfer import load
from sartor.runs import Run
from sartor.spaces.complexity import Complexity
from sartor.training.loop import train
from sartor.training.recipe import Recipe
from sartor.training.tasks import for_search

SEEDS, DATA = (0, 1, 2, 3, 4), ("cifar10", "fashion-mnist")
RANDOM, BEST, DRAWN, MARGIN = 100, 10, 3, 1.0
SEARCHES = ("scratch", "warmed up", "shifted", "not shifted", "kept", "random")
WHAT = (*SEARCHES, "order")
REDUCED: dict[str, Any] = {
    "space": "nas-bench-macro?width=0.5&resolution=16",
    "data": {
        "cifar10": "parquet:{data}/cifar10?images=10000&resolution=16",
        "fashion-mnist": "fashion-mnist:{data}/fashion_mnist?images=10000&resolution=16&channels=3",
    },
    "supernet": {"epochs": 30, "batch_size": 64},
    "search": {"iterations": 10, "population": 30, "keep": 10, "valid_batches": 2},
    "shift": {
        "iterations": 4,
        "population": 12,
        "keep": 4,
        "valid_batches": 2,
        "revisit": False,
        "samples": 256,
        "shift_lr": 0.01,
    },
    "warmup": 100,
    "recipe": {"epochs": 8, "batch_size": 64, "lr": 0.05, "evaluate_every": 0},
    "short": {"epochs": 4, "batch_size": 64, "lr": 0.05, "evaluate_every": 0},
    "floor": 50.0,
}
FULL: dict[str, Any] = {
    "space": "nas-bench-macro",
    "data": {
        "cifar10": "parquet:{data}/cifar10",
        "fashion-mnist": "fashion-mnist:{data}/fashion_mnist?resolution=32&channels=3",
    },
    "supernet": {"epochs": 60, "batch_size": 256, "lr": 0.1},
    "search": {"iterations": 20, "population": 60, "keep": 10},
    "shift": {"iterations": 8, "population": 30, "keep": 10, "revisit": False, "samples": 640, "shift_lr": 0.01},
    "warmup": 200,
    "recipe": {"epochs": 30, "batch_size": 256, "lr": 0.1, "evaluate_every": 0},
    "short": {"epochs": 15, "batch_size": 256, "lr": 0.1, "evaluate_every": 0},
    "floor": 80.0,
}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--to", choices=DATA, action="append", help="the data that are searched on, default both")
    options.add_argument("--seed", type=int, choices=SEEDS, action="append", help="default all")
    options.add_argument("--what", choices=WHAT, action="append", help="default all")
    given = options.parse_args()
    bench = Bench(FULL if given.full else REDUCED, f"transfer{'_full' if given.full else ''}")
    for what in given.what or WHAT:
        for seed in given.seed or SEEDS:
            for to in given.to or ("fashion-mnist", "cifar10"):
                bench.cell(what, to, seed)
    bench.results.summarise(**summary(bench.results.data["rows"], bench.setting["floor"]))


class Bench:
    """The cells, each of what is done, the data it is done on, and a seed."""

    def __init__(self, setting: dict[str, Any], name: str) -> None:
        torch.set_num_threads(1)
        self.setting, self.files = setting, CACHE / name
        root, device = os.environ.get("SARTOR_DATA", "../shared/data"), "cuda" if torch.cuda.is_available() else "cpu"
        self.tasks: dict[str, Any] = {
            key: sartor.tasks.get(reference.format(data=root), device) for key, reference in setting["data"].items()
        }
        self.space = sartor.spaces.get(setting["space"])
        macs = Complexity(self.space, "macs")
        terms = macs.terms()
        assert terms is not None
        mean = terms.const + sum(float(values.mean()) for values in terms.unary)
        self.budget = Budget(macs, mean)
        self.results = Results(
            name,
            "as good as a search from scratch at a tenth of its cost",
            {
                **setting,
                "data_names": {key: task.describe() for key, task in self.tasks.items()},
                "seeds": SEEDS,
                "random": RANDOM,
                "best": BEST,
                "margin": MARGIN,
            },
        )

    def cell(self, what: str, to: str, seed: int) -> None:
        cell = {"what": what, "to": to, "seed": seed}
        if what == "order":
            for of in DATA:
                self.supernet(of, seed)
            self.results.row(cell, lambda: self.order(to, seed))
            return
        if what not in ("scratch", "random"):
            self.supernet(_other(to), seed)

        def compute() -> dict[str, Any]:
            if what == "random":
                drawn = self.random(to, seed)
                tested = [self.trained(arch, to, seed, "recipe", "test") for arch in drawn]
                return {"architectures": [list(arch) for arch in drawn], "accuracy": float(np.mean(tested))}
            if what in ("scratch", "kept"):
                found = self.supernet(to if what == "scratch" else _other(to), seed)
                found = found if what == "scratch" else {"architecture": found["architecture"]}
            else:
                found = self.searched(what, to, seed)
            return {**found, "accuracy": self.trained(tuple(found["architecture"]), to, seed, "recipe", "test")}

        self.results.row(cell, compute)

    def supernet(self, of: str, seed: int) -> dict[str, Any]:
        """SPOS on a data set, whose run keeps the supernet."""
        cell = {"what": "supernet", "to": of, "seed": seed}
        row = self.results.row(cell, lambda: self.searched("spos", of, seed))
        return {key: value for key, value in row.items() if key != "cell"}

    def random(self, to: str, seed: int) -> list[Architecture]:
        drawn = self.space.sample(np.random.default_rng([seed, DATA.index(to)]), 1000)
        return [arch for arch in drawn if self.budget.score([arch])[0] <= self.budget.limit][:DRAWN]

    def searched(self, what: str, to: str, seed: int) -> dict[str, Any]:
        options: dict[str, Any] = {**self.setting["supernet"], **self.setting["search"]}
        method = "spos"
        if what != "spos":
            method, source = "supernet-shifting", str(self.files / f"spos-{_other(to)}-{seed}")
            warmup = 0 if what == "shifted" else self.setting["warmup"]
            options = {**options, **self.setting["shift"], "source": source, "warmup": warmup}
            options |= {"shift_lr": 0.0} if what == "not shifted" else {}
        view = for_search(self.tasks[to])
        counted, place = Counted(view), self.files / f"{what.replace(' ', '-')}-{to}-{seed}"
        shutil.rmtree(place, ignore_errors=True)  # what a kill left would make it look cheaper
        began = time.process_time()
        with Run(place, {"of": what, **options}, seed) as run:
            found = sartor.search(method, self.space, counted, budget=self.budget, run=run, **options)
        return {
            "architecture": list(found.architecture),
            "said": found.extras["score"],
            "images": sum(found.extras["images"].values()),
            "images graded": counted.graded,
            "cpu_seconds": time.process_time() - began,
        }

    def trained(self, arch: Architecture, to: str, seed: int, recipe: str, split: Any) -> float:
        with tempfile.TemporaryDirectory() as scratch, Run(Path(scratch) / "run", {"of": "transfer"}, seed) as run:
            torch.manual_seed(run.torch_seed("weights"))
            network, by = self.space.network(arch), Recipe().override(self.setting[recipe])
            of = "trainvalid" if split == "test" else "train"
            found = train(network, self.tasks[to], by, run.stage("train"), split=of, evaluate=split)
        return float(found["value"])

    def order(self, to: str, seed: int) -> dict[str, Any]:
        """Of the other data set's supernet beside that of these data."""
        drawn = list(dict.fromkeys(self.space.sample(np.random.default_rng([seed, 7]), RANDOM)))
        grades = {}
        for of in (_other(to), to):
            supernet: Any = self.space.supernet()
            load(supernet, self.files / f"spos-{of}-{seed}" / "search" / FILE)
            supernet.to(self.tasks[of].device).eval()
            grades[of] = SupernetScore(self.space, supernet, for_search(self.tasks[of]))(drawn)
        first, second = grades[_other(to)], grades[to]
        best = np.argsort(-first, kind="stable")[:BEST]
        rest = np.setdiff1d(np.arange(len(drawn)), best)
        others = np.random.default_rng([seed, 8]).choice(rest, BEST, replace=False)
        alone = {
            name: [self.trained(drawn[i], to, seed, "short", "test") for i in some]
            for name, some in (("best", best), ("others", others))
        }
        return {
            "global": quality(first, second)["kendall"],
            "local": quality(first[best], second[best])["kendall"],
            "local, trained": quality(first[best], np.array(alone["best"]))["kendall"],
            "best": alone["best"],
            "others": alone["others"],
        }


class Counted:
    """A task that counts the images it grades networks by."""

    def __init__(self, task: Any) -> None:
        self._task, self.graded = task, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def evaluate(self, net: Any, split: Any, *, limit: int | None = None) -> Any:
        size = self._task.length(split)
        self.graded += size if limit is None else min(size, 512 * limit)
        return self._task.evaluate(net, split, limit=limit)


def _other(name: str) -> str:
    return DATA[1 - DATA.index(name)]


def summary(rows: list[dict[str, Any]], floor: float) -> dict[str, Any]:
    """Quality and cost beside the search from scratch, and the orders."""
    found = {(c["to"], c["what"], c["seed"]): row for row in rows if (c := row["cell"])["what"] in WHAT}
    searches, orders = [], []
    for to in DATA:
        for what in SEARCHES:
            mine = {seed: row for (of, kind, seed), row in found.items() if (of, kind) == (to, what)}
            if not mine:
                continue
            pairs = [(row, found[to, "scratch", seed]) for seed, row in mine.items() if (to, "scratch", seed) in found]
            apart = [a["accuracy"] - b["accuracy"] for a, b in pairs]
            line: dict[str, Any] = {
                "to": to,
                "search": what,
                "seeds": len(mine),
                "accuracy": interval([row["accuracy"] for row in mine.values()]),
                "against scratch": interval(apart) if len(apart) > 1 and what != "scratch" else None,
            }
            if what == "random":
                line["floor reached"] = line["accuracy"]["mean"] >= floor
            if line["against scratch"]:
                line["as good"] = "yes" if line["against scratch"]["low"] > -MARGIN else "not shown"
            for cost in ("images", "images graded", "cpu_seconds"):
                known = [row[cost] for row in mine.values() if cost in row]
                line[cost] = float(np.mean(known)) if known else None
                both = [b[cost] / a[cost] for a, b in pairs if cost in a and what != "scratch"]
                line[f"{cost}: scratch / this"] = float(np.mean(both)) if both else None
            searches.append(line)
        mine = {seed: row for (of, kind, seed), row in found.items() if (of, kind) == (to, "order")}
        if mine:
            orders.append(
                {
                    "from": _other(to),
                    "to": to,
                    "seeds": len(mine),
                    **{f"tau {of}": interval([row[of] for row in mine.values()]) for of in ("global", "local")},
                    "tau local, trained": interval([row["local, trained"] for row in mine.values()]),
                    "best less others (points)": interval(
                        [float(np.mean(row["best"]) - np.mean(row["others"])) for row in mine.values()]
                    ),
                }
            )
    return {"searches": searches, "orders": orders}


if __name__ == "__main__":
    main()
