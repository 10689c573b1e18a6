"""Supernet Shifting beside SPOS where every answer is known: does the order get better, and what is found?

Must show (issue Supernet Shifting, 2). NAS-Bench-Macro and NAS-Bench-201 as supernets, trained on CIFAR-10 (JPEG); the
public tables grade, and no search sees them. Per seed one supernet, from which all searches begin:

    spos            the supernet stays
    spos, longer    the supernet is trained further on as many images as `published` shifts on, with a schedule as long
    spos, by MACs   the supernet is trained on networks drawn evenly over ranges of multiply-accumulates
    published       Supernet Shifting: 640 images a visit, 1e-4, an update a batch of 32, children alone; norms are
                    calibrated, as in all searches here
    others          rate; schedule; images a generation; whether networks that stay are revisited

Settings are chosen by the first five seeds; what is chosen is judged by five others (`--confirm`), beside both forms of
SPOS.

Both spaces have networks that compute the same under several architectures (skips, identities, and edges that lead
nowhere), which the tables have trained anew each time. They are one network here, the first of them, with the mean of
their accuracies.

Order, before and after: Kendall's tau between what the supernet says and the table's accuracy, of random networks
within the limit (global), and of the 10, the 50 and (a hundred drawn of them) the 300 best of them by the table
(local). How far the table itself knows these orders: where it has several trainings of each network, tau of each beside
the others' mean, the best by the latter. How far this setting could know them: forty of the 300 best, each trained
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
from collections.abc import Callable, Hashable, Sequence
from functools import cache, partial
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
from sartor.quality.saved import FILE
from sartor.quality.supernet import SupernetScore
from sartor.quality.transfer import load
from sartor.report.style import CYCLE, canvas, quiet, styled
from sartor.runs import Run, read_json
from sartor.spaces.complexity import Complexity
from sartor.spaces.nasbench201 import EDGES, OPERATORS
from sartor.training.loop import train
from sartor.training.recipe import Recipe
from sartor.training.tasks import for_search

SEEDS, CONFIRMING, RANDOM, BEST, IMAGES = (0, 1, 2, 3, 4), (5, 6, 7, 8, 9), 150, (10, 50), 640
MANY, DRAWN, LAST = 300, 100, 10
ALONE: dict[str, Any] = {"networks": 40, "recipe": {"epochs": 10, "batch_size": 64, "lr": 0.05, "evaluate_every": 0}}
TABLES: dict[str, tuple[str, str, list[str]]] = {  # accuracy, and that of each training
    "nas-bench-macro": ("nas_bench_macro_cifar10.csv.gz", "mean_acc", [f"test_acc_{i}" for i in range(3)]),
    "nas-bench-201": ("nas_bench_201.parquet", "cifar10_test_acc_200ep", []),
}
ORDERS = ("global", f"local {MANY}", *(f"local {n}" for n in BEST[::-1]))
PUBLISHED: dict[str, Any] = {"per": "architecture", "shift_lr": 1e-4}
REVISITING: dict[str, Any] = {**PUBLISHED, "revisit": True}
SEARCHES: dict[str, dict[str, Any]] = {
    "spos": {},
    "spos, longer": {},
    "spos, by MACs": {"sampling": "macs"},
    "published": PUBLISHED,
    "revisiting": REVISITING,
    "revisiting, 1e-3": {**REVISITING, "shift_lr": 1e-3},
    "revisiting, 1e-2": {**REVISITING, "shift_lr": 1e-2},
    "published, 1e-3": {**PUBLISHED, "shift_lr": 1e-3},
    "published, 1e-2": {**PUBLISHED, "shift_lr": 1e-2},
    "per iteration": {**PUBLISHED, "schedule": "per_iteration"},
    "per iteration, 1e-2": {**PUBLISHED, "schedule": "per_iteration", "shift_lr": 1e-2},
    "640 a generation, 1e-2": {**PUBLISHED, "per": "generation", "shift_lr": 1e-2},
}
CORE = ("spos", "spos, longer", "published", "640 a generation, 1e-2")
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
                "best": [*BEST, MANY],
                "drawn": DRAWN,
                "last": LAST,
            },
        )

    @cache  # noqa: B019 one bench a process
    def known(self, name: str) -> Known:
        query = self.setting["spaces"][name]
        space = sartor.spaces.get(f"{name}?{query}" if query else name)
        return Known(space, Path(self.data) / TABLES[name][0], *TABLES[name][1:])

    def cell(self, name: str, seed: int, search: str) -> None:
        known, place = self.known(name), CACHE / self.name / f"{name}-{seed}"
        self.results.row({"space": name, "what": "table"}, known.trainings)
        trained = {"space": name, "seed": seed, "what": "supernet"}
        self.results.row(trained, lambda: self.supernet(known.space, seed, place))

        def compute() -> dict[str, Any]:
            found = self.search(known.space, seed, place, search, known.budget)
            return {**found, "settings": SEARCHES[search], **known.standing(found["architecture"], found["last"])}

        self.results.row({"space": name, "seed": seed, "what": "search", "search": search}, compute)
        for one in ("before", *([] if search == "spos" else [search])):  # the supernet of `spos` is that before
            own = place / "supernet" if one == "before" else _own(place, search)
            cell = {"space": name, "seed": seed, "what": "order", "supernet": one}
            self.results.row(cell, partial(self.order, known, seed, _left(own)))

    def alone(self, name: str) -> None:
        """Networks among the many best by the table, each trained alone in this setting."""
        known = self.known(name)
        best = known.best(MANY)
        for i in np.random.default_rng(0).choice(len(best), ALONE["networks"], replace=False):
            cell = {"space": name, "what": "alone", "architecture": list(best[i]), **ALONE["recipe"]}
            self.results.row(cell, partial(self.trained, known, best[i]))

    def trained(self, known: Known, arch: Architecture) -> dict[str, float]:
        """Accuracy on `valid`, as supernets are graded, and on `test`, beside that of the table."""
        task, recipe = self.whole[known.space.spec()["space"]], Recipe().override(ALONE["recipe"])
        with tempfile.TemporaryDirectory() as scratch, Run(Path(scratch) / "run", {"of": "alone"}, 0) as run:
            torch.manual_seed(run.torch_seed("weights"))
            network = known.space.network(arch)
            found = train(network, task, recipe, run.stage("train"), split="train", evaluate="test")
        valid = task.evaluate(network, "valid")["accuracy"]
        return {"valid": valid, "test": found["value"], "table": float(known.truth([arch])[0])}

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
        elif options.get("revisit"):
            options["iterations"] = round(visits / options["population"])
        if name == "spos, longer":  # the images of the shift go into the supernet
            options["epochs"] += round(visits * IMAGES / self.task(space).length("train"))
        shutil.rmtree(own, ignore_errors=True)
        began = time.process_time()
        with Run(own, {"of": name, **options}, seed) as run:
            if not _trains(name):  # the same seed and stage: it is trained already
                shutil.copytree(place / "supernet" / "search" / "supernet", own / "search" / "supernet")
            found = sartor.search(method, space, self.task(space), budget=budget, run=run, **options)
        return {
            "architecture": list(found.architecture),
            "said": found.extras["score"],
            "images": found.extras["images"],
            "cpu_seconds": time.process_time() - began,
            "last": _graded_best(own / "memo.jsonl"),
        }

    def order(self, known: Known, seed: int, file: Path) -> dict[str, Any]:
        """What a supernet says beside the table."""
        supernet, task = known.space.supernet(), self.task(known.space)
        load(supernet, file)
        supernet.to(task.device).eval()
        score = SupernetScore(known.space, supernet, task, limit=self.setting["grade"])
        rng, best = np.random.default_rng(seed), known.best(max(BEST))
        drawn, many = (
            [some[i] for i in rng.choice(len(some), n, replace=False)]
            for some, n in ((known.within, RANDOM), (known.best(MANY), DRAWN))
        )
        said = score(best)
        return {
            "global": quality(told := score(drawn), known.truth(drawn))["kendall"],
            "mean": float(told.mean()),
            f"local {MANY}": quality(score(many), known.truth(many))["kendall"],
            **{f"local {n}": quality(said[:n], known.truth(best[:n]))["kendall"] for n in BEST},
        }


class Known:
    """A space whose networks all stand in a table: the limit, one of each that compute the same, their accuracies."""

    def __init__(self, space: Any, file: Path, column: str, trainings: list[str]) -> None:
        self.space, macs = space, Complexity(space, "macs")
        every, table = list(space.enumerate()), tables.load(sartor.spaces.get(space.spec()["space"]), file)
        costs = macs(every)
        self.budget = Budget(macs, float(np.median(costs)))
        forms = [(cost, FORMS[space.spec()["space"]](space, arch)) for cost, arch in zip(costs.tolist(), every)]
        place = {form: i for i, form in enumerate(dict.fromkeys(forms))}
        self._at = {arch: place[form] for arch, form in zip(every, forms)}
        member = np.array(list(self._at.values()))

        def mean(of: str) -> F:
            values = table.score(of)(every)
            there = np.isfinite(values)
            sums, count = (np.bincount(member, np.where(there, v, 0.0), len(place)) for v in (values, 1.0))
            return sums / np.where(count, count, np.nan)

        self._accuracy, each = mean(column), [mean(one) for one in trainings]
        first = [every[i] for i in np.unique(member, return_index=True)[1]]
        known = [i for i, form in enumerate(place) if form[0] <= self.budget.limit and np.isfinite(self._accuracy[i])]
        self.within = [first[i] for i in known]
        self._each, self._ranked = [one[known] for one in each], np.array(known)

    def truth(self, archs: Sequence[Sequence[int]]) -> F:
        """Mean accuracy (%) of all trainings in the table of a network like each."""
        return self._accuracy[[self._at[self.space.canonical(arch)] for arch in archs]]

    def best(self, n: int) -> list[Architecture]:
        return [self.within[i] for i in np.argsort(-self.truth(self.within), kind="stable")[:n]]

    def standing(self, found: Sequence[int], last: Sequence[Sequence[int]]) -> dict[str, Any]:
        """Of a network, and of the last that were graded best."""
        accuracy, all_of_them = float(self.truth([found])[0]), self.truth(self.within)
        return {
            "accuracy": accuracy,
            "rank": int((all_of_them > accuracy).sum()) + 1,
            "of": len(all_of_them),
            "best": float(all_of_them.max()),
            f"mean of {LAST}": float(self.truth(last).mean()),
        }

    def trainings(self) -> dict[str, Any]:
        """Networks within the limit, and tau of each training of them beside the mean of the others."""
        out: dict[str, Any] = {"networks": len(self.within), "trainings": len(self._each)}
        for of, n in (("global", len(self.within)), *((f"local {n}", n) for n in (MANY, *BEST))):
            taus = []
            for i, one in enumerate(self._each):
                others = np.mean([other for j, other in enumerate(self._each) if j != i], 0)
                best = np.argsort(-others, kind="stable")[:n]
                taus.append(quality(one[best], others[best])["kendall"])
            out |= {of: float(np.mean(taus))} if taus else {}
        return out


def _macro(space: Any, arch: Architecture) -> Hashable:
    """Identities that change no shape are nothing."""
    strided = [row[2] > 1 for row in space.rows]
    return tuple((i if strided[i] else 0, k) for i, k in enumerate(arch) if k or strided[i])


def _cell(space: Any, arch: Architecture) -> Hashable:
    """The sum at the output: operators on sums of operators, without skips and what is nothing."""
    nodes: list[tuple[str, ...]] = [("in",), (), (), ()]
    for end in (1, 2, 3):
        terms: list[str] = []
        for slot, (source, target) in zip(space.canonical(arch), EDGES):
            if target == end and nodes[source] and OPERATORS[slot] != "none":
                skip = OPERATORS[slot] == "skip_connect"
                terms += nodes[source] if skip else [f"{OPERATORS[slot]}({'+'.join(nodes[source])})"]
        nodes[end] = tuple(sorted(terms))
    return nodes[3]


FORMS: dict[str, Callable[[Any, Architecture], Hashable]] = {"nas-bench-macro": _macro, "nas-bench-201": _cell}


def _trains(search: str) -> bool:
    """Whether a search has a supernet of its own."""
    return search == "spos, longer" or "sampling" in SEARCHES[search]


def _own(place: Path, name: str) -> Path:
    return place / name.replace(" ", "-").replace(",", "")


def _left(run: Path) -> Path:
    """The supernet that a run leaves."""
    shifted = run / "search" / SHIFTED
    return shifted if shifted.exists() else run / "search" / FILE


def _graded_best(memo: Path) -> list[list[int]]:
    """The last that a search graded in the end."""
    lines = [json.loads(line) for line in memo.read_text().splitlines()]
    said = {line["key"]: line["value"] for line in lines if line["value"] is not None}
    return [list(map(int, key.split("/")[-1].split())) for key in sorted(said, key=said.__getitem__)[-LAST:]]


def summary(rows: list[dict[str, Any]], floor: float) -> dict[str, Any]:
    """By space and search, in pairs of one seed against the supernet before and both forms of SPOS; and confirmed."""
    chosen, judged = (_summary(rows, floor, seeds) for seeds in (SEEDS, CONFIRMING))
    named = {f"{key}, confirming seeds": value for key, value in judged.items() if value}
    return {**chosen, **named}


def _summary(rows: list[dict[str, Any]], floor: float, seeds: tuple[int, ...]) -> dict[str, list[dict[str, Any]]]:
    table = {c["space"]: row for row in rows if (c := row["cell"])["what"] == "table"}
    trainings = [row for row in rows if row["cell"]["what"] == "alone"]
    rows = [row for row in rows if row["cell"].get("seed") in seeds]
    order = {(c["space"], c["supernet"], c["seed"]): row for row in rows if (c := row["cell"])["what"] == "order"}
    found = {(c["space"], c["search"], c["seed"]): row for row in rows if (c := row["cell"])["what"] == "search"}
    trained = {(c["space"], c["seed"]): row for row in rows if (c := row["cell"])["what"] == "supernet"}
    orders, searches = [], []
    for space in TABLES:
        before = {seed: row for (of, one, seed), row in order.items() if (of, one) == (space, "before")}
        if not before:
            continue
        taus = {f"tau {of}": interval([row[of] for row in before.values()]) for of in ORDERS}
        said = [row["mean"] for row in before.values()]
        reached = {"accuracy said": interval(said), "floor reached": min(said) >= floor}
        orders.append({"space": space, "supernet": "before", "seeds": len(before), **taus, **reached})
        if table[space]["trainings"]:
            taus = {f"tau {of}": table[space][of] for of in ORDERS}
            orders.append({"space": space, "supernet": "none: one training beside two others", **taus})
        alone = [row for row in trainings if row["cell"]["space"] == space]
        by = {key: np.array([row[key] for row in alone]) for key in ("valid", "test", "table")}
        for split in ("valid", "test") if alone else ():
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
            mine = {seed: row for (of, search, seed), row in found.items() if (of, search) == (space, name)}
            if not mine:
                continue
            after = {seed: order[space, name, seed] for seed in mine if (space, name, seed) in order}
            if after:
                taus = {
                    f"tau {of}": interval([row[of] - before[seed][of] for seed, row in after.items()]) for of in ORDERS
                }
                orders.append({"space": space, "supernet": f"{name}, less before", "seeds": len(after), **taus})
            against = {}
            for other in ("spos", "spos, longer"):
                pairs = [(row, found.get((space, other, seed))) for seed, row in mine.items() if other != name]
                for key, of in (("accuracy", ""), (f"mean of {LAST}", f"mean of {LAST}, ")):
                    apart = [row[key] - theirs[key] for row, theirs in pairs if theirs]
                    against[f"{of}against {other}"] = interval(apart) if len(apart) > 1 else None
            shared = 0.0 if _trains(name) else 1.0  # the supernet of all others is trained once
            seconds = [row["cpu_seconds"] + shared * trained[space, seed]["cpu_seconds"] for seed, row in mine.items()]
            searches.append(
                {
                    "space": space,
                    "search": name,
                    "seeds": len(mine),
                    "accuracy of the found": interval([row["accuracy"] for row in mine.values()]),
                    "best (%)": next(iter(mine.values()))["best"],
                    "rank": float(np.median([row["rank"] for row in mine.values()])),
                    "of": next(iter(mine.values()))["of"],
                    f"mean of {LAST}": interval([row[f"mean of {LAST}"] for row in mine.values()]),
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
