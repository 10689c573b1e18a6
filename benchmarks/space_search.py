"""Network Space Search on CIFAR-10 (JPEG): is the space found better than all of the space it was found in?

Must show (issue Network Space Search, 2, 3, 4, 6, 7). Per seed a supernet of all of the Expanded Space is trained for
grading alone. Per budget and seed, with budgets in multiply-accumulates and in measured milliseconds:

    ours          the default: settling controller, exact mean, landing
    published     fixed multiplier of |cost / target - 1|, effective sizes, the nearest of five draws; logits as fast as
                  ours, since at the published rate they would hardly move in so few updates
    random        a space at random of those that land: what a mean at the target is worth without a search
    all           a search for a network on all of the space: ours with windows of one depth and one width

What is compared: error of uniform members within 10 % of the target (`worth`), of the space found and of all, graded
alike, by `valid`, which the searches have seen, too; how far the mean and the members are from the target; how many
draws it takes to land within 10 %, uniformly from the space, from all, and from the distribution a search ends with.
`nas` trains alone what LightNAS finds inside the space, and what it finds on all of it, which has as many epochs but
no search for a space before. Of latency, members are measured afresh, and all that is said of costs is of what was
measured; `pairs` predicts, a fit for each limit.

`no task` leaves out the loss of the task, for twelve targets: does any change of a single window bring the mean closer?
By default a search takes the likeliest space that lands (within 5 %), not the nearest; with a tolerance of .1 % there
is little to choose. `growing` has searches for a network in spaces of growing size, at the tightest budget, beside the
search for a space in the largest: how many draws of their last distributions are within 10 %, and how good these are.

Reduced: width, depth, resolution and images, with 4 x 8 windows a stage. Full: 16 x 512 sizes in 4 x 16 windows, as
published, on a GPU; at 12 pixels as well, since at 32 the largest network has 10^11 multiply-accumulates.

    python benchmarks/space_search.py [--full] [--stage NAME ...] [--kind NAME] [--seed S ...] [--budget I ...]
    python benchmarks/space_search.py [--full] figure     # docs/img/space_search.svg
"""

from __future__ import annotations

import shutil
import tempfile
import time
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import bench
import sartor
from common import RESULTS, interval, parser
from sartor import workflow
from sartor.core import Architecture, Budget, F, Score, Unreachable
from sartor.core.score import TermScore
from sartor.predictors import load
from sartor.quality.spaces import LANDED, distribution, draws_to_land, near
from sartor.quality.supernet import SupernetScore, train_supernet
from sartor.quality.transfer import load as load_supernet
from sartor.quality.transfer import save as save_supernet
from sartor.report.style import CYCLE, canvas, quiet, styled
from sartor.runs import Run, read_json, read_lines
from sartor.spaces.complexity import Complexity
from sartor.spaces.expanded import Expanded
from sartor.spaces.windows import Windows, mean
from sartor.training.loop import train
from sartor.training.recipe import Recipe
from sartor.training.tasks import for_search

STAGES, SEEDS = ("no task", "supernet", "search", "worth", "measured", "nas", "growing"), (0, 1, 2)
KINDS = ("macs", "latency")
WAYS = {"macs": ("ours", "random", "all", "published"), "latency": ("ours", "random", "all")}
NO_TASK: dict[str, dict[str, Any]] = {
    "ours": {},
    "ours, tolerance 0.1 %": {"tolerance": 0.001},
    "published": {"paper": True},
}
NOT = {("worth", "all"), ("measured", "all"), ("nas", "random"), ("nas", "published"), ("measured", "random")}
GRADED, DRAWN, MEASURED = 50, 1000, 40
REDUCED: dict[str, Any] = {
    "space": "expanded?depth=8&width=32&stem=8&resolution=12",
    "windows": {"depths": 2, "widths": 4},
    "data": "parquet:{data}/cifar10?images=6000&resolution=12",
    "budgets": [1e6, 2e6, 4e6, 8e6],
    "search": {"epochs": 14, "batch_size": 64},
    "supernet": {"epochs": 30, "batch_size": 64},
    "nas": {"epochs": 14, "warmup_epochs": 4, "batch_size": 64},
    "recipe": {"epochs": 20, "batch_size": 64, "lr": 0.05, "evaluate_every": 0},
    "samples": 300,
    "growing": [[2, 16], [4, 16], [8, 16]],
    "floor": 45.0,
}
FULL: dict[str, Any] = {
    "space": "expanded?resolution=12",
    "windows": {"depths": 4, "widths": 32},
    "data": "parquet:{data}/cifar10?images=20000&resolution=12",
    "budgets": [3e7, 9e7, 2.4e8, 6e8],
    "search": {"epochs": 9, "batch_size": 128},
    "supernet": {"epochs": 10, "batch_size": 128},
    "nas": {"epochs": 16, "warmup_epochs": 5, "batch_size": 128},
    "recipe": {"epochs": 20, "batch_size": 128, "lr": 0.1, "evaluate_every": 0},
    "samples": 300,
    "growing": [[4, 128], [16, 128], [16, 256]],
    "floor": 55.0,
}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("what", nargs="?", default="measure", choices=["measure", "figure"])
    options.add_argument("--stage", choices=STAGES, action="append", help="default all")
    options.add_argument("--kind", choices=KINDS, action="append", help="of budgets, default both")
    options.add_argument("--way", choices=WAYS["macs"], action="append", help="default all")
    options.add_argument("--seed", type=int, choices=SEEDS, action="append", help="default all")
    options.add_argument("--budget", type=int, choices=range(4), action="append", help="default all")
    given = options.parse_args()
    name = f"space_search{'_full' if given.full else ''}"
    if given.what == "figure":
        out = Path(__file__).parent.parent / "docs" / "img" / "space_search.svg"
        drawn(read_json(RESULTS / f"{name}.json")).savefig(out, facecolor="white")
        return
    own = Bench(FULL if given.full else REDUCED, name)
    for stage in given.stage or STAGES:
        if stage == "no task":
            for way in NO_TASK:
                for target in range(12):
                    own.row({"what": stage, "way": way, "target": target}, partial(own.no_task, way, target))
            continue
        for seed in given.seed or SEEDS:
            if stage == "supernet":
                own.row({"what": stage, "seed": seed}, partial(own.supernet, seed))
                continue
            if stage == "growing":
                for size in range(len(own.setting["growing"]) + 2):
                    own.row({"what": stage, "seed": seed, "size": size}, partial(own.growing, seed, size))
                continue
            for kind in given.kind or KINDS:
                for way in [w for w in WAYS[kind] if w in (given.way or WAYS[kind])]:
                    if (stage, way) in NOT or (stage == "measured" and kind == "macs"):
                        continue
                    for budget in given.budget or range(len(own.setting["budgets"])):
                        cell = {"kind": kind, "way": way, "seed": seed, "budget": budget}
                        own.row({"what": stage, **cell}, partial(getattr(own, stage), **cell))
    own.results.summarise(**summary(own.results.data["rows"], own.setting["floor"]))


class Bench(bench.Bench):
    """The stages; each reads the rows of those before it."""

    def __init__(self, setting: dict[str, Any], name: str) -> None:
        goal = "members of the space found better than those of all at equal cost; 5 draws to land within 10 %"
        super().__init__(setting, name, goal, SEEDS, graded=GRADED, drawn=DRAWN, measured=MEASURED)
        self.space: Any = sartor.spaces.get(setting["space"])
        self.windows = Windows(self.space, **setting["windows"])

    # ------------------------------------------------------------------ costs

    @cached_property
    def macs(self) -> Score:
        return Complexity(self.space, "macs")

    def budget(self, kind: str, i: int) -> Budget:
        """Of latency: the median of networks that are within 10 % of the budget in multiply-accumulates."""
        counted = Budget(self.macs, float(self.setting["budgets"][i]))
        if kind == "macs":
            return counted
        limits = {"what": "limit", "budget": i}
        limit = self.row(limits, lambda: {"limit (ms)": self.limit(counted)})["limit (ms)"]
        file = self.files / f"latency-{i}.safetensors"
        if not file.exists():
            options = {"samples": self.setting["samples"], "near": limit, "store": self.store}
            fit = workflow.fit_predictor("pairs", self.space, self.target, **options)
            fit.predictor.save(file)
        return Budget(load(file, space=self.space), limit)

    def limit(self, counted: Budget) -> float:
        some = near(partial(self.space.sample, np.random.default_rng(7)), counted, 30)
        return float(f"{np.nanmedian(self.latencies(some, f'limit {counted.limit:g}')):.3g}")

    def latencies(self, archs: list[Architecture], sitting: str) -> F:
        """(n,) milliseconds, measured together; NaN for failures."""
        return np.array(self.times([(self.space, arch) for arch in archs], sitting), dtype=np.float64)

    # ------------------------------------------------------------------ stages

    def no_task(self, way: str, target: int) -> dict[str, Any]:
        """Twelve targets from the cheapest space to the dearest, evenly in the logarithm, the ends left out."""
        score = mean(self.macs, self.windows)
        costs = score(self.windows.sample(np.random.default_rng(0), 20000))
        limit = float(np.exp(np.linspace(np.log(costs.min()), np.log(costs.max()), 14)[1:-1][target]))
        options = {**self.setting["windows"], **self.setting["search"], "accuracy_term": False, "arch_lr": None}
        found = sartor.search(
            "network-space-search",
            self.space,
            self.task,
            budget=Budget(self.macs, limit, "at"),
            seed=target,
            **{**options, **NO_TASK[way]},
        )
        out: dict[str, Any] = {"limit": limit}
        for of, arch in (("winner", found.architecture), ("argmax", found.argmax.architecture)):
            moves = [
                (*arch[:i], k, *arch[i + 1 :]) for i, slot in enumerate(self.windows.slots) for k in range(len(slot))
            ]
            gaps = {name: np.abs(s([arch, *moves]) / limit - 1) for name, s in self.of_spaces(found, score).items()}
            out[of] = {
                "architecture": list(arch),
                **{f"gap, {name}": float(gap[0]) for name, gap in gaps.items()},
                **{f"closer moves, {name}": int((gap[1:] < gap[0] - 1e-12).sum()) for name, gap in gaps.items()},
            }
        return out

    @staticmethod
    def of_spaces(found: Any, exact: Score) -> dict[str, Score]:
        """Costs of spaces: the exact mean, and what the search went by."""
        return {"mean": exact, "its own": found.budgets[0].score}

    def supernet(self, seed: int) -> dict[str, Any]:
        with Run(self.files / f"supernet-{seed}", {"of": self.setting["supernet"]}, seed) as run:
            began = time.process_time()
            trained = train_supernet(self.space, for_search(self.task), run, **self.setting["supernet"])
            save_supernet(trained, self.files / f"supernet-{seed}.safetensors", self.task)
        middle = tuple(len(slot) // 2 for slot in self.space.slots)
        largest = tuple(len(slot) - 1 for slot in self.space.slots)
        said = SupernetScore(self.space, trained, for_search(self.task))([middle, largest])
        return {"middle": float(said[0]), "largest": float(said[1]), "cpu_seconds": time.process_time() - began}

    def graded(self, seed: int) -> SupernetScore:
        trained: Any = self.space.supernet()
        load_supernet(trained, self.files / f"supernet-{seed}.safetensors")
        return SupernetScore(self.space, trained.to(self.task.device).eval(), for_search(self.task))

    def search(self, kind: str, way: str, seed: int, budget: int) -> dict[str, Any]:
        of, began = self.budget(kind, budget), time.process_time()
        if way == "random":
            arch, windows = self.lands(of, np.random.default_rng([seed, budget, 2])), self.windows
            found = {"architecture": list(arch)}
        else:
            windows, arch, found = self.searched(way, seed, of, self.space)
        members = windows.members(arch, np.random.default_rng(seed), DRAWN)
        every = self.space.sample(np.random.default_rng(seed), 10**5)
        costs = of.score(members)
        out: dict[str, Any] = {
            **found,
            "cpu_seconds": time.process_time() - began,
            "windows": [slot.candidates[k] for slot, k in zip(windows.slots, arch)],
            "limit": of.limit,
            "mean off (%)": float(100 * abs(costs.mean() / of.limit - 1)),
            "members off (%)": float(100 * np.abs(costs / of.limit - 1).mean()),
            "draws, all": _finite(draws_to_land(of.score(every), of)),
        }
        if way != "all":  # which has nothing to draw from
            out["draws, uniform"] = _finite(draws_to_land(costs, of))
        if way != "random":
            drawn = self.last(windows, found["permille"], np.random.default_rng(seed))
            out["draws, of the last distribution"] = _finite(draws_to_land(of.score(drawn), of))
        return out

    def lands(self, of: Budget, rng: np.random.Generator) -> Architecture:
        """A space at random of those whose mean is at most 5 % below the limit, as searches of ours end."""
        score = mean(of.score, self.windows)
        while True:
            some = self.windows.sample(rng, 2000)
            costs = score(some) / of.limit
            landed = [arch for arch, cost in zip(some, costs) if 0.95 <= cost <= 1.0]
            if landed:
                return landed[0]

    def searched(
        self, way: str, seed: int, of: Budget, space: Expanded
    ) -> tuple[Windows, Architecture, dict[str, Any]]:
        options = {**self.setting["windows"], **self.setting["search"], "arch_lr": None, "paper": way == "published"}
        if way == "all":
            options |= {"depths": 1, "widths": 1}
        place = self.files / f"{way}-{seed}-{of.score.metric.name}-{of.limit:g}-{space.id}"
        shutil.rmtree(place, ignore_errors=True)
        with Run(place, {"of": way}, seed) as run:
            found = sartor.search("network-space-search", space, self.task, budget=of, run=run, **options)
        last = [line for line in read_lines(place / "search" / "journal.jsonl") if line.get("event") == "epoch"][-1]
        told = {"architecture": list(found.architecture), "status": found.winner.status, "permille": last["permille"]}
        windows: Any = found.space
        return windows, found.architecture, told

    @staticmethod
    def last(windows: Windows, permille: list[list[float]], rng: np.random.Generator) -> list[Architecture]:
        """Networks from the distribution that a search ended with."""
        chances = [np.array(row) / sum(row) for row in permille]
        picks = np.stack([rng.choice(len(p), DRAWN, p=p) for p in chances], axis=1)
        return [windows.members(tuple(arch), rng, 1)[0] for arch in picks.tolist()]

    def worth(self, kind: str, way: str, seed: int, budget: int) -> dict[str, Any]:
        """Errors of networks within 10 % of the target, of the space and of all."""
        known, of = self.needed(what="search", kind=kind, way=way, seed=seed, budget=budget), self.budget(kind, budget)
        rng, score = np.random.default_rng([seed, budget]), self.graded(seed)
        inside = near(partial(self.windows.members, tuple(known["architecture"]), rng), of, GRADED)
        every = {"what": "all", "kind": kind, "seed": seed, "budget": budget}
        outside = self.row(every, lambda: self.everything(of, score, np.random.default_rng([seed, budget, 1])))
        return {
            "space": (100 - score(inside)).tolist() if inside else [],
            "costs": of.score(inside).tolist(),
            "all": outside["errors"],
        }

    def everything(self, of: Budget, score: Score, rng: np.random.Generator) -> dict[str, Any]:
        drawn = near(partial(self.space.sample, rng), of, GRADED)
        return {"errors": (100 - score(drawn)).tolist(), "costs": of.score(drawn).tolist()}

    def measured(self, kind: str, way: str, seed: int, budget: int) -> dict[str, Any]:
        """Members of the space, and of all, measured together."""
        known, of = self.needed(what="search", kind=kind, way=way, seed=seed, budget=budget), self.budget(kind, budget)
        rng = np.random.default_rng([seed, budget, 3])
        members = self.windows.members(tuple(known["architecture"]), rng, MEASURED)
        outside = self.space.sample(rng, MEASURED)
        times = self.latencies([*members, *outside], f"members {way} {seed} {budget}") / of.limit
        ms, every = times[:MEASURED], times[MEASURED:]
        ms, every = ms[np.isfinite(ms)], every[np.isfinite(every)]
        return {
            "mean off (%)": float(100 * abs(ms.mean() - 1)),
            "members off (%)": float(100 * np.abs(ms - 1).mean()),
            "within 10 %": float(np.mean(np.abs(ms - 1) <= LANDED)),
            "within 10 %, all": float(np.mean(np.abs(every - 1) <= LANDED)),
        }

    def nas(self, kind: str, way: str, seed: int, budget: int) -> dict[str, Any]:
        """One network, trained alone, that LightNAS finds inside the space, or on all of it."""
        known, of = self.needed(what="search", kind=kind, way=way, seed=seed, budget=budget), self.budget(kind, budget)
        inside: Any = self.space if way == "all" else self.windows.elite(tuple(known["architecture"]))
        place = self.files / f"nas-{way}-{seed}-{kind}-{budget}"
        shutil.rmtree(place, ignore_errors=True)
        began = time.process_time()
        score = of.score
        if way != "all":
            terms = of.score.terms()
            assert terms is not None  # counted, or by `pairs`
            score = TermScore(inside, of.score.metric, terms.among(inside.keep))
        try:
            with Run(place, {"of": way}, seed) as run:
                limit = Budget(score, of.limit)
                found = sartor.search("lightnas", inside, self.task, budget=limit, run=run, **self.setting["nas"])
        except Unreachable as error:
            return {"architecture": None, "accuracy": None, "why": str(error)}
        took = time.process_time() - began
        arch = found.architecture if inside is self.space else inside.lift(found.architecture)
        with tempfile.TemporaryDirectory() as scratch, Run(Path(scratch) / "run", {"b": "space"}, seed) as run:
            torch.manual_seed(run.torch_seed("weights"))
            recipe = Recipe().override(self.setting["recipe"])
            trained = train(self.space.network(arch), self.task, recipe, run.stage("train"))
        return {
            "architecture": list(arch),
            "cost": float(of.score([arch])[0]),
            "accuracy": trained["value"],
            "cpu_seconds": took,
        }

    def growing(self, seed: int, size: int) -> dict[str, Any]:
        """Draws of a search's last distribution that are within 10 %; spaces are parts of the largest, which grades.

        size: of the spaces that grow; then the largest, and the search for a space in that, whose runs are there.
        """
        parts, of = self.setting["growing"], self.budget("macs", 0)
        rng = np.random.default_rng(seed)
        if size < len(parts):
            depth, width = parts[size]
            part = Expanded(**{**_options(self.space), "depth": depth, "width": width})
            windows, _, found = self.searched("all", seed, Budget(Complexity(part, "macs"), of.limit), part)
        else:
            part, way = self.space, ("all", "ours")[size - len(parts)]
            found = self.needed(what="search", kind="macs", way=way, seed=seed, budget=0)
            windows = Windows(part, 1, 1) if way == "all" else self.windows
        drawn = self.last(windows, found["permille"], rng)
        landed = [arch for arch, cost in zip(drawn, of.score(drawn)) if abs(cost / of.limit - 1) <= LANDED]
        said: F = self.graded(seed)(landed[:GRADED]) if landed else np.zeros(0)
        return {
            "of": f"networks, {part.depth} x {part.width}" if windows.depths == 1 else "spaces of the largest",
            "networks": part.size,
            "landed": len(landed) / len(drawn),
            "different": len(set(landed)),
            "errors": (100 - said).tolist(),
        }


def _options(space: Expanded) -> dict[str, Any]:
    return {key: value for key, value in space.spec().items() if key != "space"}


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def summary(rows: list[dict[str, Any]], floor: float) -> dict[str, Any]:
    """Errors at equal cost, deviations, draws, what one search inside gives, moves that come closer, and shapes."""
    of = lambda what: [row for row in rows if row["cell"]["what"] == what]  # noqa: E731
    keyed = {
        what: {(c["kind"], c["way"], c["budget"], c["seed"]): row for row in of(what) if (c := row["cell"])}
        for what in ("search", "worth", "measured", "nas")
    }
    searches = []
    for kind in KINDS:
        for way in WAYS[kind]:
            for budget in range(4):
                mine = {s: r for (k, w, b, s), r in keyed["search"].items() if (k, w, b) == (kind, way, budget)}
                if not mine:
                    continue
                some = {what: [keyed[what].get((kind, way, budget, s)) for s in mine] for what in keyed}
                searches.append(
                    {
                        "budget of": kind,
                        "search": way,
                        "budget": float(next(iter(mine.values()))["limit"]),
                        "seeds": len(mine),
                        **{key: _over([r[key] for r in mine.values()]) for key in ("mean off (%)", "members off (%)")},
                        **{
                            key: [row.get(key) for row in mine.values()]
                            for key in ("draws, uniform", "draws, of the last distribution", "draws, all")
                        },
                        "error less that of all (points)": _over(
                            [_apart(r) for r in some["worth"] if r and r["space"]]
                        ),
                        "measured, mean off (%)": _over([r["mean off (%)"] for r in some["measured"] if r]),
                        "measured, within 10 %": [r["within 10 %"] for r in some["measured"] if r],
                        "measured, within 10 %, all": [r["within 10 %, all"] for r in some["measured"] if r],
                        "one search inside, accuracy": _over(
                            [r["accuracy"] for r in some["nas"] if r and r["accuracy"]]
                        ),
                        "one search inside, none lands": sum(r["accuracy"] is None for r in some["nas"] if r),
                        "CPU seconds": float(np.median([row["cpu_seconds"] for row in mine.values()])),
                    }
                )
    shapes = []
    for kind in KINDS:
        for way in WAYS[kind]:
            archs = [row["architecture"] for (k, w, *_), row in keyed["search"].items() if (k, w) == (kind, way)]
            if archs:
                shapes.append(
                    {
                        "budget of": kind,
                        "search": way,
                        "d1 <= d3 <= d2": f"{sum(a[0] <= a[4] <= a[2] for a in archs)} of {len(archs)}",
                        "w1 <= w3 <= w2": f"{sum(a[1] <= a[5] <= a[3] for a in archs)} of {len(archs)}",
                    }
                )
    middles = [supernet["middle"] for supernet in of("supernet")]
    no_task = of("no task")
    return {
        "searches": searches,
        "pairs of one seed, over budgets": [
            {
                "budget of": kind,
                "search": way,
                "error less that of all (points)": _paired(keyed, kind, way, "worth", None),
                "error less that of a space at random (points)": _paired(keyed, kind, way, "worth", "random"),
                "accuracy of one search inside less on all (points)": _paired(keyed, kind, way, "nas", "all"),
            }
            for kind in KINDS
            for way in WAYS[kind]
            if way not in ("all",)
        ],
        "no task": [
            {
                "search": way,
                "targets": len(mine := [row for row in no_task if row["cell"]["way"] == way]),
                "no closer move": sum(row["winner"]["closer moves, mean"] == 0 for row in mine),
                "no closer move, argmax": sum(row["argmax"]["closer moves, mean"] == 0 for row in mine),
                "no closer move by its own cost": sum(row["winner"]["closer moves, its own"] == 0 for row in mine),
                "off (%), median": float(100 * np.median([row["winner"]["gap, mean"] for row in mine])),
            }
            for way in NO_TASK
            if any(row["cell"]["way"] == way for row in no_task)
        ],
        "shapes": shapes,
        "growing": [
            {
                "search for": name,
                "seeds": len(mine := [row for row in of("growing") if row["of"] == name]),
                "of networks": mine[0]["networks"],
                "draws within 10 %": _over([row["landed"] for row in mine]),
                "different": [row["different"] for row in mine],
                "their error (%)": _over([float(np.mean(row["errors"])) for row in mine if row["errors"]]),
            }
            for name in dict.fromkeys(row["of"] for row in of("growing"))
        ],
        "middle network of the supernets (%)": middles,
        "floor": floor,
        "floor reached": bool(middles) and min(middles) >= floor,
    }


def _over(values: list[float]) -> dict[str, Any] | None:
    """Mean and interval over seeds."""
    return interval(values) if len(values) > 1 else None


def _apart(row: dict[str, Any]) -> float:
    return float(np.mean(row["space"]) - np.mean(row["all"]))


def _paired(keyed: Any, kind: str, way: str, what: str, other: str | None) -> dict[str, Any] | None:
    """Of each seed the mean over budgets, which share the supernet that grades; other: None for all of the space."""
    value = _apart if what == "worth" else lambda row: row["accuracy"]
    known = {key: row for key, row in keyed[what].items() if row.get("space", True) and row.get("accuracy", True)}
    by_seed: dict[int, list[float]] = {}
    for (k, w, budget, seed), row in known.items():
        beside = (k, other, budget, seed)
        if (k, w) == (kind, way) and way != other and (other is None or beside in known):
            by_seed.setdefault(seed, []).append(value(row) - (value(known[beside]) if other else 0.0))
    return _over([float(np.mean(some)) for some in by_seed.values()])


@styled
def drawn(data: dict[str, Any]) -> Any:
    """Left: errors against cost, of the spaces found and of all. Right: how errors within 10 % are distributed."""
    figure = canvas(3.4)
    left, right = figure.subplots(1, 2)
    quiet(left, grid="both")
    quiet(right, grid="both")
    of = lambda **cell: [r for r in data["rows"] if {**r["cell"], **cell} == r["cell"] and "seed" in r["cell"]]  # noqa: E731
    for budget in range(4):
        for source, style in (("space", "-"), ("all", "--")):
            mine = of(what="worth", kind="macs", way="ours", budget=budget) if source == "space" else []
            mine = mine or of(what="all", kind="macs", budget=budget)
            if not mine:
                continue
            macs = np.concatenate([row["costs"] for row in mine]) / 1e6
            errors = np.concatenate([row["space" if source == "space" else "errors"] for row in mine])
            colour = CYCLE[budget] if source == "space" else "#9aa2ab"
            left.scatter(macs, errors, s=4, color=colour, linewidths=0, zorder=2 + (source == "space"))
            limit = data["settings"]["budgets"][budget] / 1e6
            right.step(*distribution(errors), where="post", color=CYCLE[budget], linestyle=style,
                       label=f"{limit:g} MMACs, {'the space found' if source == 'space' else 'all'}")  # fmt: skip
    left.set(xscale="log", xlabel="multiply-accumulates (M)", ylabel="error by the supernet (%)")
    right.set(xlabel="error by the supernet (%)", ylabel="share of networks")
    right.legend(frameon=False, fontsize=6.5)
    return figure


if __name__ == "__main__":
    main()
