"""Supernet Shifting beside SPOS where every answer is known: does the order get better, and what is found?

Must show (issue Supernet Shifting, 2). NAS-Bench-Macro and NAS-Bench-201 as supernets, trained on CIFAR-10 (JPEG); the
public tables grade, and no search sees them. Per seed one supernet, from which all searches begin:

    spos            the supernet stays
    spos, longer    the supernet is trained further on as many images as `published` shifts on, with a schedule as long
    published       Supernet Shifting: 640 images a visit, 1e-4, an update a batch of 32, children alone; norms are
                    calibrated, as in all searches here
    others          rate, and whether it decays; schedule; images a generation; whether networks that stay are revisited

Settings are chosen by the first five seeds; what is chosen is judged by five others (`--confirm`), beside both forms of
SPOS.

Order, before and after: Kendall's tau between what the supernet says and the table's accuracy, of random networks
within the limit (global), and of the 10, the 50 and (a hundred drawn of them) the 500 best of them by the table
(local). How far the table itself knows these orders: where it has several trainings of each network, tau of each beside
the others' mean, the best by the latter. How far this setting could know them: sixty of the 500 best, each trained
alone at the same width, resolution and images (`--alone`). Found: the table's accuracy of the network that each search
ends with, of how many networks within the limit it is the best, and the mean of the ten that the supernet graded best
in the end. The limit is the median of multiply-accumulates over the space. Intervals are of seeds; differences are in
pairs of one seed.

Reduced: width, depth of NAS-Bench-201, resolution and images, never slots or candidates. Full: the spaces as
published, all images, on a GPU. Floor: what networks at random have to reach by the supernet before it is shifted.

    python benchmarks/shifting.py [--full] [--space NAME] [--seed S ...] [--search NAME ...]
    python benchmarks/shifting.py [--full] [--space NAME] --alone
    python benchmarks/shifting.py [--full] figure     # docs/img/shifting.svg
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sartor
from common import CACHE, RESULTS, Results, interval, parser
from sartor import tables
from sartor.core import Architecture, Budget, F
from sartor.methods.spos import SPOS
from sartor.methods.supernet_shifting import SHIFTED
from sartor.predictors.evaluate import quality
from sartor.quality.order import kendall
from sartor.quality.supernet import SupernetScore
from sartor.quality.transfer import FILE, load
from sartor.report.style import CYCLE, canvas, quiet, styled
from sartor.runs import Run, read_json
from sartor.spaces.complexity import Complexity
from sartor.training.loop import train
from sartor.training.recipe import Recipe
from sartor.training.tasks import for_search

SEEDS, CONFIRMING, RANDOM, BEST, IMAGES = (0, 1, 2, 3, 4), (5, 6, 7, 8, 9), 150, (10, 50), 640
MANY, DRAWN, LAST = 500, 100, 10
ALONE: dict[str, Any] = {"networks": 60, "recipe": {"epochs": 10, "batch_size": 64, "lr": 0.05, "evaluate_every": 0}}
TABLES: dict[str, tuple[str, str, list[str]]] = {  # accuracy, and that of each training
    "nas-bench-macro": ("nas_bench_macro_cifar10.csv.gz", "mean_acc", [f"test_acc_{i}" for i in range(3)]),
    "nas-bench-201": ("nas_bench_201.parquet", "cifar10_test_acc_200ep", []),
}
ORDERS = ("global", f"local {MANY}", *(f"local {n}" for n in BEST[::-1]))
PUBLISHED: dict[str, Any] = {"revisit": False}
SEARCHES: dict[str, dict[str, Any]] = {
    "spos": {},
    "spos, longer": {},
    "published": PUBLISHED,
    "revisiting": {},
    "revisiting, 1e-3": {"shift_lr": 1e-3},
    "revisiting, 1e-2": {"shift_lr": 1e-2},
    "published, 1e-3": {**PUBLISHED, "shift_lr": 1e-3},
    "published, 1e-2": {**PUBLISHED, "shift_lr": 1e-2},
    "per iteration": {**PUBLISHED, "schedule": "per_iteration"},
    "per iteration, 1e-2": {**PUBLISHED, "schedule": "per_iteration", "shift_lr": 1e-2},
    "640 a generation, 1e-2": {**PUBLISHED, "per": "generation", "shift_lr": 1e-2},
    "revisiting, 1e-2 to 0": {"shift_lr": 1e-2, "decay": True},
    "revisiting, 5e-2 to 0": {"shift_lr": 5e-2, "decay": True},
}
CORE = ("spos", "spos, longer", "published", "revisiting, 1e-2")
REDUCED: dict[str, Any] = {
    "spaces": {"nas-bench-macro": "width=0.5&resolution=16", "nas-bench-201": "width=16&cells=1&resolution=16"},
    "data": {  # a supernet of NAS-Bench-201 that has seen fewer grades all cells alike, with or without convolutions
        "nas-bench-macro": "parquet:{data}/cifar10?images=10000&resolution=16",
        "nas-bench-201": "parquet:{data}/cifar10?resolution=16",
    },
    "supernet": {"epochs": 30, "batch_size": 64},
    "search": {"iterations": 12, "population": 30, "keep": 10, "valid_batches": 2},
    "grade": 4,
    "floor": 35.0,
}
FULL: dict[str, Any] = {
    "spaces": {"nas-bench-macro": "", "nas-bench-201": ""},
    "data": {"nas-bench-macro": "parquet:{data}/cifar10", "nas-bench-201": "parquet:{data}/cifar10"},
    "supernet": {"epochs": 60, "batch_size": 256},
    "search": {"iterations": 20, "population": 60, "keep": 10},
    "grade": None,
    "floor": 60.0,
}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("what", nargs="?", default="measure", choices=["measure", "figure"])
    options.add_argument("--space", choices=TABLES, action="append", help="default both")
    options.add_argument("--confirm", action="store_true", help="with the seeds that judge what was chosen")
    options.add_argument("--seed", type=int, choices=(*SEEDS, *CONFIRMING), action="append", help="default all")
    options.add_argument("--search", choices=SEARCHES, action="append", help="default those of the core, then the rest")
    options.add_argument("--alone", action="store_true", help="networks trained alone, instead of searches")
    given = options.parse_args()
    name = f"shifting{'_full' if given.full else ''}"
    if given.what == "figure":
        out = Path(__file__).parent.parent / "docs" / "img" / "shifting.svg"
        drawn(read_json(RESULTS / f"{name}.json")["summary"]).savefig(out, facecolor="white")
        return
    bench = Bench(FULL if given.full else REDUCED, name)
    if given.alone:
        for space in given.space or TABLES:
            bench.alone(space)
    searches = [] if given.alone else given.search or (*CORE, *(one for one in SEARCHES if one not in CORE))
    for search in searches:
        for seed in given.seed or (CONFIRMING if given.confirm else SEEDS):
            for space in given.space or TABLES:
                bench.cell(space, seed, search)
    bench.results.summarise(**summary(bench.results.data["rows"], bench.setting["floor"]))


class Bench:
    """The cells, each of a space, a seed and a search."""

    def __init__(self, setting: dict[str, Any], name: str) -> None:
        torch.set_num_threads(1)
        self.setting, self.name = setting, name
        self.data = os.environ.get("SARTOR_DATA", "../shared/data")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        tasks = {of: sartor.tasks.get(data.format(data=self.data), device) for of, data in setting["data"].items()}
        self.tasks, self.whole = {of: for_search(task) for of, task in tasks.items()}, tasks
        self.results = Results(
            name,
            "the local order after shifting above that before it; what is found beside SPOS at equal cost",
            {
                **setting,
                "data_names": {of: task.describe() for of, task in tasks.items()},
                "seeds": SEEDS,
                "confirming": CONFIRMING,
                "random": RANDOM,
                "best": BEST,
            },
        )

    def known(self, name: str) -> tuple[Any, Any, Budget, list[Architecture], F]:
        """A space and its table, the limit, the networks within it, and their accuracies."""
        query = self.setting["spaces"][name]
        space = sartor.spaces.get(f"{name}?{query}" if query else name)
        file, column, _ = TABLES[name]
        table = tables.load(sartor.spaces.get(name), Path(self.data) / file)
        every = list(space.enumerate())
        macs = Complexity(space, "macs")
        costs = macs(every)
        budget = Budget(macs, float(np.median(costs)))
        within = [arch for arch, cost in zip(every, costs) if cost <= budget.limit]
        return space, table, budget, within, np.nan_to_num(table.score(column)(within), nan=-np.inf)

    def cell(self, name: str, seed: int, search: str) -> None:
        space, table, budget, within, true = self.known(name)
        _, column, trainings = TABLES[name]
        truth = table.score(column)
        ranked = [within[i] for i in np.argsort(-true, kind="stable")]
        best = ranked[: max(BEST)]
        if trainings:
            each = np.column_stack([table.score(one)(within) for one in trainings])
            self.results.row({"space": name, "what": "table"}, lambda: known(each))
        drawn = [within[i] for i in np.random.default_rng(seed).choice(len(within), RANDOM, replace=False)]
        place = CACHE / self.name / f"{name}-{seed}"
        shared = (space, drawn, best, truth)
        trained = {"space": name, "seed": seed, "what": "supernet"}
        self.results.row(trained, lambda: self.supernet(space, seed, place))
        before = {"space": name, "seed": seed, "what": "order before"}
        self.results.row(before, lambda: self.order(place / "supernet" / "search" / FILE, *shared))

        def compute() -> dict[str, Any]:
            found = self.search(space, seed, place, search, budget)
            found["settings"] = SEARCHES[search]
            accuracy = float(truth([found["architecture"]])[0])
            after = found.pop("supernet")
            return {
                **found,
                "accuracy": accuracy,
                "rank": int((true > accuracy).sum()) + 1,
                "of": len(within),
                "best": float(true.max()),
                **({} if search == "spos" else {"order": self.order(after, *shared)}),
            }

        self.results.row({"space": name, "seed": seed, "what": "search", "search": search}, compute)
        many = [ranked[i] for i in np.random.default_rng(seed).choice(MANY, DRAWN, replace=False)]
        again = {"what": "looked at again", "best": MANY, "drawn": DRAWN, "last": LAST}
        for one in ("before", search):
            cell = {"space": name, "seed": seed, **again, "search": one}
            self.results.row(cell, lambda one=one: self.again(space, place, one, many, truth))

    def alone(self, name: str) -> None:
        """Networks among the many best by the table, each trained alone in this setting."""
        space, _, _, within, true = self.known(name)
        best = np.argsort(-true, kind="stable")
        for i in np.random.default_rng(0).choice(MANY, DRAWN, replace=False)[: ALONE["networks"]]:
            cell = {"space": name, "what": "alone", "place": int(i), **ALONE["recipe"]}
            arch, accuracy = within[best[i]], float(true[best[i]])
            self.results.row(cell, lambda arch=arch, known=accuracy: {**self.trained(space, arch), "table": known})

    def trained(self, space: Any, arch: Architecture) -> dict[str, float]:
        """Accuracy on `valid`, as supernets are graded, and on `test`."""
        task, recipe = self.whole[space.spec()["space"]], Recipe().override(ALONE["recipe"])
        with tempfile.TemporaryDirectory() as scratch, Run(Path(scratch) / "run", {"of": "alone"}, 0) as run:
            torch.manual_seed(run.torch_seed("weights"))
            network = space.network(arch)
            found = train(network, task, recipe, run.stage("train"), split="train", evaluate="test")
        return {"valid": task.evaluate(network, "valid")["accuracy"], "test": found["value"]}

    def task(self, space: Any) -> Any:
        return self.tasks[space.spec()["space"]]

    def supernet(self, space: Any, seed: int, place: Path) -> dict[str, Any]:
        shutil.rmtree(place / "supernet", ignore_errors=True)  # what a kill left would make it look cheaper
        began = time.process_time()
        with Run(place / "supernet", {"of": self.setting["supernet"]}, seed) as run:
            SPOS(**self.setting["supernet"]).trained(space, self.task(space), run.stage("search"))
        return {"cpu_seconds": time.process_time() - began}

    def search(self, space: Any, seed: int, place: Path, name: str, budget: Budget) -> dict[str, Any]:
        """As many visits for each."""
        options: dict[str, Any] = {**self.setting["supernet"], **self.setting["search"], **SEARCHES[name]}
        children = options["population"] - options["keep"]
        visits = options["population"] + (options["iterations"] - 1) * children
        method, own = "supernet-shifting", _own(place, name)
        if name.startswith("spos"):
            method = "spos"
        elif options.get("revisit", True):
            options["iterations"] = round(visits / options["population"])
        if name == "spos, longer":  # the images of the shift go into the supernet
            options["epochs"] += round(visits * IMAGES / self.task(space).length("train"))
        shutil.rmtree(own, ignore_errors=True)
        began = time.process_time()
        with Run(own, {"of": name, **options}, seed) as run:
            if name != "spos, longer":  # the same seed and stage: it is trained already
                shutil.copytree(place / "supernet" / "search" / "supernet", own / "search" / "supernet")
            found = sartor.search(method, space, self.task(space), budget=budget, run=run, **options)
        return {
            "architecture": list(found.architecture),
            "said": found.extras["score"],
            "images": found.extras["images"],
            "cpu_seconds": time.process_time() - began,
            "supernet": _left(own),
        }

    def grader(self, file: Path, space: Any) -> SupernetScore:
        supernet, task = space.supernet(), self.task(space)
        load(supernet, file)
        supernet.to(task.device).eval()
        return SupernetScore(space, supernet, task, limit=self.setting["grade"])

    def again(self, space: Any, place: Path, search: str, many: list[Architecture], truth: Any) -> dict[str, Any]:
        """The order of many good networks, and the mean of those that the search graded best in the end."""
        own = _own(place, "supernet" if search == "before" else search)
        out = {}
        if search != "spos":  # whose supernet is that before
            out["tau"] = quality(self.grader(_left(own), space)(many), truth(many))["kendall"]
        if search != "before":
            lines = [json.loads(line) for line in (own / "memo.jsonl").read_text().splitlines()]
            said = {line["key"]: line["value"] for line in lines if line["value"] is not None}
            last = [tuple(map(int, key.split("/")[-1].split())) for key in sorted(said, key=said.__getitem__)[-LAST:]]
            out["last"] = float(truth(last).mean())
        return out

    def order(
        self, file: Path, space: Any, drawn: list[Architecture], best: list[Architecture], truth: Any
    ) -> dict[str, Any]:
        """What a supernet says beside the table."""
        score = self.grader(file, space)
        said, true = score(drawn), truth(drawn)
        kept = np.isfinite(true)
        out = {"global": quality(said[kept], true[kept])["kendall"], "mean": float(said.mean())}
        said, true = score(best), truth(best)
        return out | {f"local {n}": quality(said[:n], true[:n])["kendall"] for n in BEST}


def _own(place: Path, name: str) -> Path:
    return place / name.replace(" ", "-").replace(",", "")


def _left(run: Path) -> Path:
    """The supernet that a run leaves."""
    shifted = run / "search" / SHIFTED
    return shifted if shifted.exists() else run / "search" / FILE


def known(trainings: F) -> dict[str, Any]:
    """Tau of each training of the same networks beside the mean of the others."""
    out = {}
    for of, n in (("global", len(trainings)), *((f"local {n}", n) for n in (MANY, *BEST))):
        taus = []
        for i in range(trainings.shape[1]):
            others = np.delete(trainings, i, 1).mean(1)
            best = np.argsort(-others, kind="stable")[:n]
            taus.append(quality(trainings[best, i], others[best])["kendall"])
        out[of] = float(np.mean(taus))
    return out


def summary(rows: list[dict[str, Any]], floor: float) -> dict[str, Any]:
    """By space and search, in pairs of one seed against the supernet before and both forms of SPOS; and confirmed."""
    chosen, judged = (_summary(rows, floor, seeds) for seeds in (SEEDS, CONFIRMING))
    named = {f"{key}, confirming seeds": value for key, value in judged.items() if value}
    return {**chosen, **named}


def _summary(rows: list[dict[str, Any]], floor: float, seeds: tuple[int, ...]) -> dict[str, list[dict[str, Any]]]:
    table = {c["space"]: row for row in rows if (c := row["cell"])["what"] == "table"}
    trainings = [row for row in rows if row["cell"]["what"] == "alone"]
    rows = [row for row in rows if row["cell"].get("seed") in seeds]
    again = {
        (c["space"], c["search"], c["seed"]): row
        for row in rows
        if (c := row["cell"])["what"] == "looked at again" and c["best"] == MANY
    }
    found = {(c["space"], c["search"], c["seed"]): row for row in rows if (c := row["cell"])["what"] == "search"}
    before = {(c["space"], c["seed"]): row for row in rows if (c := row["cell"])["what"] == "order before"}
    trained = {(c["space"], c["seed"]): row for row in rows if (c := row["cell"])["what"] == "supernet"}
    orders, searches = [], []

    def tau(of: str, space: str, seed: int, name: str) -> float:
        if of == f"local {MANY}":
            return float(again[space, name, seed]["tau"])
        row = before[space, seed] if name == "before" else found[space, name, seed]["order"]
        return float(row[of])

    for space in TABLES:
        begun = [seed for of, seed in before if of == space and (space, "before", seed) in again]
        if begun:
            taus = {f"tau {of}": interval([tau(of, space, seed, "before") for seed in begun]) for of in ORDERS}
            said = [before[space, seed]["mean"] for seed in begun]
            reached = {"accuracy said": interval(said), "floor reached": min(said) >= floor}
            orders.append({"space": space, "supernet": "before", "seeds": len(begun), **taus, **reached})
        if begun and space in table:
            taus = {f"tau {of}": table[space][of] for of in ORDERS}
            orders.append({"space": space, "supernet": "none: one training beside two others", **taus})
        alone = [row for row in trainings if row["cell"]["space"] == space]
        if alone and begun:
            by = {key: np.array([row[key] for row in alone]) for key in ("valid", "test", "table")}
            for split in ("valid", "test"):
                told = kendall(by[split], by["table"])
                orders.append(
                    {
                        "space": space,
                        "supernet": f"none: each of {len(alone)} trained alone here, by {split}",
                        f"tau local {MANY}": {"mean": told["tau"], "low": told["low"], "high": told["high"]},
                        "accuracy said": float(by[split].mean()),
                    }
                )
        for name in SEARCHES:
            mine = {
                seed: row
                for (of, search, seed), row in found.items()
                if (of, search) == (space, name) and (space, name, seed) in again
            }
            if not mine:
                continue
            if name != "spos":
                taus = {
                    f"tau {of}": interval(
                        [tau(of, space, seed, name) - tau(of, space, seed, "before") for seed in mine]
                    )
                    for of in ORDERS
                }
                orders.append({"space": space, "supernet": f"{name}, less before", "seeds": len(mine), **taus})
            against = {}
            for other in ("spos", "spos, longer"):
                pairs = [s for s in mine if (space, other, s) in again and other != name]
                apart = [mine[s]["accuracy"] - found[space, other, s]["accuracy"] for s in pairs]
                against[f"against {other}"] = interval(apart) if len(apart) > 1 else None
                apart = [again[space, name, s]["last"] - again[space, other, s]["last"] for s in pairs]
                against[f"mean of {LAST}, against {other}"] = interval(apart) if len(apart) > 1 else None
            shared = 0.0 if name == "spos, longer" else 1.0  # the supernet of all others is trained once
            seconds = [row["cpu_seconds"] + shared * trained[space, seed]["cpu_seconds"] for seed, row in mine.items()]
            searches.append(
                {
                    "space": space,
                    "search": name,
                    "seeds": len(mine),
                    "accuracy of the found": interval([row["accuracy"] for row in mine.values()]),
                    "best (%)": next(iter(mine.values()))["best"],
                    "rank": float(np.median([row["rank"] for row in mine.values()])),
                    f"mean of {LAST}": interval([again[space, name, seed]["last"] for seed in mine]),
                    **against,
                    "CPU seconds, supernet included": float(np.median(seconds)),
                }
            )
    return {"order": orders, "found": searches}


@styled
def drawn(summary: dict[str, Any]) -> Any:
    """Change of the order by search, a panel a space."""
    figure = canvas(3.6)
    axes = figure.subplots(1, len(TABLES), sharey=True)
    for ax, space in zip(axes, TABLES):
        quiet(ax, grid="x")
        rows = [row for row in summary["order"] if row["space"] == space and "less before" in row["supernet"]][::-1]
        for k, of in enumerate(ORDERS):
            y = np.arange(len(rows)) + 0.2 * (1.5 - k)
            mean, low, high = (np.array([row[f"tau {of}"][key] for row in rows]) for key in ("mean", "low", "high"))
            ax.errorbar(mean, y, xerr=[mean - low, high - mean], fmt="o", markersize=4, color=CYCLE[k], label=of)
        ax.axvline(0, linewidth=0.8, color="black")
        ax.set(xlabel="change of Kendall's tau", title=space)
        ax.set_yticks(range(len(rows)), [row["supernet"].removesuffix(", less before") for row in rows])
    axes[0].legend(frameon=False, fontsize=7)
    return figure


if __name__ == "__main__":
    main()
