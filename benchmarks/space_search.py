"""Network Space Search on CIFAR-10 (JPEG): is the space found better than all of the space it was found in?

Must show (issue Network Space Search, 2, 3, 4, 6, 7). Per seed a supernet of all of the Expanded Space is trained for
grading alone. Per budget and seed:

    ours          the default: settling controller, exact mean, landing
    published     fixed multiplier of |cost / target - 1|, effective sizes, the nearest of five draws; logits as fast as
                  ours, since at the published rate they would hardly move in so few updates
    nas on all    the same with windows of one depth and one width: a search for a network on all of the space
    latency       ours with a budget in measured milliseconds, which predicts by `pairs`; members are measured afresh

What is compared: error of uniform members within 10 % of the target, of the space found and of all, graded alike, by
`valid`, which the searches have seen, too; the mean cost of members; how many draws it takes to land within 10 %,
uniformly from the space, from all, and from the distribution a search ends with. `nas` trains alone what LightNAS finds
inside the space, and what it finds on all of it.

`no task` leaves out the loss of the task, for twelve targets: does any change of a single window come closer?
`growing` searches for networks in spaces of growing size, and for a space in the largest, at the tightest budget.

Reduced: width, depth, resolution and images, with 4 x 8 windows a stage; full: 16 x 512 as published, on a GPU.

    python benchmarks/space_search.py [--full] [--stage NAME ...] [--seed S ...] [--budget I ...]
    python benchmarks/space_search.py [--full] figure     # docs/img/space_search.svg
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sartor
from common import CACHE, RESULTS, Results, interval, measured_on, parser
from sartor import workflow
from sartor.core import Architecture, Budget, F, Score, Unreachable
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
from sartor.targets.store import Store
from sartor.training.loop import train
from sartor.training.recipe import Recipe
from sartor.training.tasks import for_search

STAGES, SEEDS = ("no task", "supernet", "search", "worth", "nas", "latency", "growing"), (0, 1, 2)
WAYS = ("ours", "published", "nas on all")
GRADED, DRAWN = 100, 1000
REDUCED: dict[str, Any] = {
    "space": "expanded?depth=8&width=32&stem=8&resolution=16",
    "windows": {"depths": 2, "widths": 4},
    "data": "parquet:{data}/cifar10?images=10000&resolution=16",
    "budgets": [2e6, 4e6, 8e6, 16e6],
    "search": {"epochs": 20, "warmup_epochs": 6, "batch_size": 64},
    "supernet": {"epochs": 20, "batch_size": 64},
    "nas": {"epochs": 20, "warmup_epochs": 6, "batch_size": 64},
    "recipe": {"epochs": 20, "batch_size": 64, "lr": 0.05, "evaluate_every": 0},
    "samples": 300,
    "growing": [[4, 16], [8, 16], [4, 32], [8, 32]],
    "floor": 55.0,
}
FULL: dict[str, Any] = {
    "space": "expanded",
    "windows": {"depths": 4, "widths": 32},
    "data": "parquet:{data}/cifar10",
    "budgets": [2e8, 6e8, 1.6e9, 4e9],
    "search": {"epochs": 50, "warmup_epochs": 15, "batch_size": 64},
    "supernet": {"epochs": 50, "batch_size": 64},
    "nas": {"epochs": 50, "warmup_epochs": 15, "batch_size": 64},
    "recipe": {"epochs": 60, "batch_size": 128, "lr": 0.1, "evaluate_every": 0},
    "samples": 300,
    "growing": [[4, 128], [16, 128], [8, 256], [16, 256], [16, 512]],
    "floor": 90.0,
}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("what", nargs="?", default="measure", choices=["measure", "figure"])
    options.add_argument("--stage", choices=STAGES, action="append", help="default all")
    options.add_argument("--seed", type=int, choices=SEEDS, action="append", help="default all")
    options.add_argument("--budget", type=int, choices=range(4), action="append", help="default all")
    given = options.parse_args()
    name = f"space_search{'_full' if given.full else ''}"
    if given.what == "figure":
        out = Path(__file__).parent.parent / "docs" / "img" / "space_search.svg"
        drawn(read_json(RESULTS / f"{name}.json")).savefig(out, facecolor="white")
        return
    bench = Bench(FULL if given.full else REDUCED, name)
    seeds, budgets = given.seed or SEEDS, given.budget or range(len(bench.setting["budgets"]))
    for stage in given.stage or STAGES:
        bench.stage(stage, seeds, budgets)
    bench.results.summarise(**summary(bench.results.data["rows"], bench.setting["floor"]))


class Bench:
    """The stages; each reads the rows of those before it."""

    def __init__(self, setting: dict[str, Any], name: str) -> None:
        torch.set_num_threads(1)
        self.setting, self.files = setting, CACHE / name
        self.files.mkdir(parents=True, exist_ok=True)
        root, device = os.environ.get("SARTOR_DATA", "../shared/data"), "cuda" if torch.cuda.is_available() else "cpu"
        self.task: Any = sartor.tasks.get(setting["data"].format(data=root), device)
        self.space: Any = sartor.spaces.get(setting["space"])
        self.windows = Windows(self.space, **setting["windows"])
        self.target = sartor.targets.get("onnxruntime:cpu?threads=1&batch=1")
        self.results = Results(
            name,
            "members of the space found better than those of all at equal cost; 5 draws to land within 10 %",
            {
                **setting,
                "target": measured_on(name, self.target.id),
                "data_name": self.task.describe(),
                "seeds": SEEDS,
                "graded": GRADED,
                "drawn": DRAWN,
            },
        )
        self.row = self.results.row

    def stage(self, stage: str, seeds: Any, budgets: Any) -> None:
        if stage == "no task":
            for way in ("ours", "published"):
                for target in range(12):
                    cell = {"what": stage, "way": way, "target": target}
                    self.row(cell, lambda w=way, t=target: self.no_task(w, t))
            return
        for seed in seeds:
            if stage == "supernet":
                self.row({"what": stage, "seed": seed}, lambda s=seed: self.supernet(s))
                continue
            if stage == "growing":
                for size in range(len(self.setting["growing"])):
                    cell = {"what": stage, "seed": seed, "size": size}
                    self.row(cell, lambda s=seed, k=size: self.growing(s, k))
                continue
            for budget in budgets:
                if stage == "latency":
                    self.row({"what": stage, "seed": seed, "budget": budget}, partial(self.latency, seed, budget))
                    continue
                for way in WAYS if stage != "worth" else WAYS[:2]:
                    cell = {"what": stage, "way": way, "seed": seed, "budget": budget}
                    self.row(cell, partial(getattr(self, stage), way, seed, budget))

    # ------------------------------------------------------------------ costs

    @cached_property
    def macs(self) -> Score:
        return Complexity(self.space, "macs")

    def budget(self, i: int) -> Budget:
        return Budget(self.macs, float(self.setting["budgets"][i]))

    # ------------------------------------------------------------------ stages

    def no_task(self, way: str, target: int) -> dict[str, Any]:
        """Twelve targets from the cheapest space to the dearest, evenly in the logarithm, the ends left out."""
        costs = mean(self.macs, self.windows)(self.windows.sample(np.random.default_rng(0), 20000))
        limit = float(np.exp(np.linspace(np.log(costs.min()), np.log(costs.max()), 14)[1:-1][target]))
        options = {**self.setting["windows"], **self.setting["search"], "accuracy_term": False, "arch_lr": None}
        budget = Budget(self.macs, limit, "at")
        found = sartor.search(
            "network-space-search",
            self.space,
            self.task,
            budget=budget,
            seed=target,
            paper=way == "published",
            **options,
        )
        score = found.budgets[0].score
        gap = lambda archs: np.abs(score(archs) / limit - 1)  # noqa: E731
        moves = [
            (*found.architecture[:i], k, *found.architecture[i + 1 :])
            for i, slot in enumerate(self.windows.slots)
            for k in range(len(slot))
        ]
        own = float(gap([found.architecture])[0])
        return {
            "limit": limit,
            "architecture": list(found.architecture),
            "argmax": list(found.argmax.architecture),
            "gap": own,
            "gap of the argmax": float(gap([found.argmax.architecture])[0]),
            "closer moves": int((gap(moves) < own - 1e-12).sum()),
            "closest move": float(gap(moves).min()),
        }

    def supernet(self, seed: int) -> dict[str, Any]:
        with Run(self.files / f"supernet-{seed}", {"of": self.setting["supernet"]}, seed) as run:
            began = time.monotonic()
            trained = train_supernet(self.space, for_search(self.task), run, **self.setting["supernet"])
            save_supernet(trained, self.files / f"supernet-{seed}.safetensors", self.task)
        middle = tuple(len(slot) // 2 for slot in self.space.slots)
        largest = tuple(len(slot) - 1 for slot in self.space.slots)
        said = SupernetScore(self.space, trained, for_search(self.task))([middle, largest])
        return {"middle": float(said[0]), "largest": float(said[1]), "seconds": time.monotonic() - began}

    def graded(self, seed: int) -> SupernetScore:
        trained: Any = self.space.supernet()
        load_supernet(trained, self.files / f"supernet-{seed}.safetensors")
        return SupernetScore(self.space, trained.to(self.task.device).eval(), for_search(self.task))

    def searched(self, way: str, seed: int, budget: Budget, space: Expanded | None = None) -> Any:
        options = {**self.setting["windows"], **self.setting["search"], "arch_lr": None}
        if way == "nas on all":
            options |= {"depths": 1, "widths": 1}
        place = self.files / f"{way.replace(' ', '-')}-{seed}-{budget.limit:g}-{(space or self.space).id}"
        shutil.rmtree(place, ignore_errors=True)
        with Run(place, {"of": way}, seed) as run:
            found = sartor.search(
                "network-space-search",
                space or self.space,
                self.task,
                budget=budget,
                run=run,
                paper=way != "ours",
                **options,
            )
        last = [line for line in read_lines(place / "search" / "journal.jsonl") if line.get("event") == "epoch"][-1]
        return found, [np.array(row, float) / sum(row) for row in last["permille"]]

    def search(self, way: str, seed: int, budget: int) -> dict[str, Any]:
        began = time.monotonic()
        found, chances = self.searched(way, seed, self.budget(budget))
        return {"seconds": time.monotonic() - began, **self.told(found, chances, self.budget(budget), seed)}

    def told(self, found: Any, chances: list[F], budget: Budget, seed: int) -> dict[str, Any]:
        """The windows, the cost of their networks, and how soon one lands."""
        rng, windows = np.random.default_rng(seed), found.space
        members = windows.members(found.architecture, rng, DRAWN)
        last, costs = self.last(windows, chances, rng), budget.score(members)
        alone = max(windows.sizes) == 1  # nothing to draw from
        return {
            "architecture": list(found.architecture),
            "landing": found.winner.status,
            "windows": [slot.candidates[k] for slot, k in zip(windows.slots, found.architecture)],
            "mean": float(costs.mean()),
            "deviation (%)": float(100 * (costs.mean() / budget.limit - 1)),
            "draws, uniform": None if alone else _finite(draws_to_land(costs, budget)),
            "draws, all": _finite(draws_to_land(budget.score(self.space.sample(rng, 10**5)), budget)),
            "draws, of the last distribution": _finite(draws_to_land(budget.score(last), budget)),
        }

    def last(self, windows: Windows, chances: list[F], rng: np.random.Generator) -> list[Architecture]:
        """Networks from the distribution that a search ended with."""
        picks = np.stack([rng.choice(len(p), DRAWN, p=p) for p in chances], axis=1)
        return [windows.members(tuple(arch), rng, 1)[0] for arch in picks.tolist()]

    def worth(self, way: str, seed: int, budget: int) -> dict[str, Any]:
        known = self.results.get({"what": "search", "way": way, "seed": seed, "budget": budget})
        assert known is not None, "search first"
        rng, of, score = np.random.default_rng([seed, budget]), self.budget(budget), self.graded(seed)
        inside = near(partial(self.windows.members, tuple(known["architecture"]), rng), of, GRADED)
        outside = near(partial(self.space.sample, np.random.default_rng([seed, budget, 1])), of, GRADED)
        return {
            "space": (100 - score(inside)).tolist(),
            "all": (100 - score(outside)).tolist(),
            "macs of the space": of.score(inside).tolist(),
            "macs of all": of.score(outside).tolist(),
        }

    def nas(self, way: str, seed: int, budget: int) -> dict[str, Any]:
        """One network, trained alone, that LightNAS finds inside the space, or on all of it."""
        known = self.results.get({"what": "search", "way": way, "seed": seed, "budget": budget})
        assert known is not None, "search first"
        of, place = self.budget(budget), self.files / f"nas-{way.replace(' ', '-')}-{seed}-{budget}"
        inside: Any = self.space if way == "nas on all" else self.windows.elite(tuple(known["architecture"]))
        shutil.rmtree(place, ignore_errors=True)
        began = time.monotonic()
        try:
            with Run(place, {"of": way}, seed) as run:
                limit = Budget(Complexity(inside, "macs"), of.limit)
                found = sartor.search("lightnas", inside, self.task, budget=limit, run=run, **self.setting["nas"])
        except Unreachable as error:
            return {"architecture": None, "accuracy": None, "why": str(error)}
        took = time.monotonic() - began
        arch = found.architecture if inside is self.space else inside.lift(found.architecture)
        with tempfile.TemporaryDirectory() as scratch, Run(Path(scratch) / "run", {"b": "space"}, seed) as run:
            torch.manual_seed(run.torch_seed("weights"))
            recipe = Recipe().override(self.setting["recipe"])
            trained = train(self.space.network(arch), self.task, recipe, run.stage("train"))
        return {
            "architecture": list(arch),
            "macs": float(of.score([arch])[0]),
            "accuracy": trained["value"],
            "seconds of the search": took,
        }

    def latency(self, seed: int, budget: int) -> dict[str, Any]:
        """The limit is the median latency of networks of all within 10 % of the budget in multiply-accumulates."""
        some = near(partial(self.space.sample, np.random.default_rng(7)), self.budget(budget), 30)
        with Store(self.files / "measurements.db") as store:
            sitting = f"limits {budget}"
            rows = workflow.compare([(self.space, arch) for arch in some], self.target, ["latency_ms"], store, sitting)
            limit = float(f"{np.nanmedian(np.array([row['latency_ms'] for row in rows], float)):.3g}")
            file = self.files / f"latency-{budget}.safetensors"
            if not file.exists():
                options = {"samples": self.setting["samples"], "near": limit, "store": store}
                workflow.fit_predictor("pairs", self.space, self.target, **options).predictor.save(file)
            of = Budget(load(file, space=self.space), limit)
            found, chances = self.searched("ours", seed, of)
            rng = np.random.default_rng(seed)
            members = self.windows.members(found.architecture, rng, 50)
            outside = [self.space.sample(rng, 1)[0] for _ in range(50)]
            again = [(self.space, arch) for arch in (*members, *outside)]
            rows = workflow.compare(again, self.target, ["latency_ms"], store, f"members {seed} {budget}")
        ms = np.array([row["latency_ms"] for row in rows], float)
        return {
            "limit (ms)": limit,
            **self.told(found, chances, of, seed),
            "measured (ms)": ms[:50].tolist(),
            "measured, all (ms)": ms[50:].tolist(),
        }

    def growing(self, seed: int, size: int) -> dict[str, Any]:
        """A search for a network in a smaller space; all are parts of the largest, whose supernet grades."""
        depth, width = self.setting["growing"][size]
        part = Expanded(**{**_options(self.space), "depth": depth, "width": width})
        of = Budget(Complexity(part, "macs"), float(self.setting["budgets"][0]))
        found, chances = self.searched("nas on all", seed, of, part)
        drawn = self.last(found.space, chances, np.random.default_rng(seed))
        landed = [arch for arch, cost in zip(drawn, of.score(drawn)) if abs(cost / of.limit - 1) <= LANDED]
        said: F = self.graded(seed)(landed[:GRADED]) if landed else np.zeros(0)
        return {
            "depth": depth,
            "width": width,
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
    worth = {(c["way"], c["budget"], c["seed"]): row for row in of("worth") if (c := row["cell"])}
    nas = {(c["way"], c["budget"], c["seed"]): row for row in of("nas") if (c := row["cell"])}
    searches: list[dict[str, Any]] = []
    for way in WAYS:
        for budget in sorted({row["cell"]["budget"] for row in of("search")}):
            mine = [r for r in of("search") if (r["cell"]["way"], r["cell"]["budget"]) == (way, budget)]
            if not mine:
                continue
            seeds = [row["cell"]["seed"] for row in mine]
            apart = [_apart(w) for s in seeds if (w := worth.get((way, budget, s))) and w["space"]]
            alone = [n["accuracy"] for s in seeds if (n := nas.get((way, budget, s))) and n["accuracy"] is not None]
            searches.append(
                {
                    "search": way,
                    "budget": budget,
                    "seeds": len(mine),
                    "deviation of the mean (%)": interval([row["deviation (%)"] for row in mine]),
                    "draws, uniform": [row["draws, uniform"] for row in mine],
                    "draws, of the last distribution": [row["draws, of the last distribution"] for row in mine],
                    "draws, all": [row["draws, all"] for row in mine],
                    "error less that of all (points)": interval(apart) if len(apart) > 1 else None,
                    "one search inside, accuracy": interval(alone) if len(alone) > 1 else None,
                    "seconds": float(np.median([row["seconds"] for row in mine])),
                }
            )
    pairs = {}
    for way in WAYS[:2]:
        of_seeds = [  # budgets of one seed share the supernet that grades
            np.mean([_apart(w) for (kind, _, s), w in worth.items() if (kind, s) == (way, seed) and w["space"]])
            for seed in sorted({s for kind, _, s in worth if kind == way})
        ]
        pairs[way] = interval(of_seeds) if len(of_seeds) > 1 else None
    shapes = [row["architecture"] for row in of("search") if row["cell"]["way"] != "nas on all"]
    middles = [supernet["middle"] for supernet in of("supernet")]
    return {
        "searches": searches,
        "error less that of all (points), all budgets": pairs,
        "no task": [
            {
                "search": way,
                "targets": len(mine := [row for row in of("no task") if row["cell"]["way"] == way]),
                "no closer move": sum(row["closer moves"] == 0 for row in mine),
                "gap (%)": float(100 * np.median([row["gap"] for row in mine])),
            }
            for way in ("ours", "published")
            if of("no task")
        ],
        "latency": [
            {
                "limit (ms)": row["limit (ms)"],
                "seed": row["cell"]["seed"],
                "measured, mean (ms)": float(np.nanmean(row["measured (ms)"])),
                "within 10 %": float(np.mean(np.abs(np.array(row["measured (ms)"]) / row["limit (ms)"] - 1) <= LANDED)),
                "within 10 %, all": float(
                    np.mean(np.abs(np.array(row["measured, all (ms)"]) / row["limit (ms)"] - 1) <= LANDED)
                ),
            }
            for row in of("latency")
        ],
        "d1 <= d3 <= d2 (by chance 31 %)": _share([a[0] <= a[4] <= a[2] for a in shapes]),
        "w1 <= w3 <= w2 (by chance 23 %)": _share([a[1] <= a[5] <= a[3] for a in shapes]),
        "growing": [
            {
                "size": [row["depth"], row["width"]],
                "seed": row["cell"]["seed"],
                "landed": row["landed"],
                "error": float(np.mean(row["errors"])) if row["errors"] else None,
            }
            for row in of("growing")
        ],
        "middle network of the supernets (%)": middles,
        "floor": floor,
        "floor reached": bool(middles) and min(middles) >= floor,
    }


def _apart(row: dict[str, Any]) -> float:
    return float(np.mean(row["space"]) - np.mean(row["all"]))


def _share(held: list[bool]) -> str:
    return f"{sum(held)} of {len(held)}"


@styled
def drawn(data: dict[str, Any]) -> Any:
    """Left: errors against cost, of the spaces found and of all. Right: how errors within 10 % are distributed."""
    figure = canvas(3.4)
    left, right = figure.subplots(1, 2)
    quiet(left, grid="both")
    quiet(right, grid="both")
    rows = [row for row in data["rows"] if row["cell"]["what"] == "worth" and row["cell"]["way"] == "ours"]
    for k, budget in enumerate(sorted({row["cell"]["budget"] for row in rows})):
        mine = [row for row in rows if row["cell"]["budget"] == budget]
        for of, style in (("space", "-"), ("all", "--")):
            macs = np.concatenate([row[f"macs of {'the ' if of == 'space' else ''}{of}"] for row in mine]) / 1e6
            errors = np.concatenate([row[of] for row in mine])
            colour = CYCLE[k] if of == "space" else "#9aa2ab"
            left.scatter(macs, errors, s=4, color=colour, linewidths=0, zorder=2 + (of == "space"))
            right.step(*distribution(errors), where="post", color=CYCLE[k], linestyle=style,
                       label=f"{data['settings']['budgets'][budget] / 1e6:g} MMACs, {of}")  # fmt: skip
    left.set(xscale="log", xlabel="multiply-accumulates (M)", ylabel="error by the supernet (%)")
    right.set(xlabel="error by the supernet (%)", ylabel="share of networks")
    right.legend(frameon=False, fontsize=6.5)
    return figure


if __name__ == "__main__":
    main()
