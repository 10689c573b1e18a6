"""Domino on CIFAR-10 (JPEG): accuracy at equal measured latency beside width scaling and pruning, and its parts.

Must show (issue Domino, 3, 3b, 6). MobileNetV2 for 32 pixels, all 17 blocks; a base network per seed is trained on
`train` alone, so that `valid` can grade what begins with its weights. A supernet of grafts grades networks drawn at
random, and the estimate from these grades chooses within budgets of measured latency: two for all networks below, two
further ones for the first four. Beside what Domino finds:

    as it was       the base network, trained on like the others
    width           the network of the width whose latency is nearest to the limit, from scratch; of widths of the
                    same latency the largest
    pruned          Torch-Pruning: group magnitudes, all layers ranked together (isomorphic), the share of channels
                    chosen likewise; channels in eights
    random          grafts at random that land within 2 % below the limit
    layers          only `keep` and `skip`, by the same estimate (layer pruning, thesis Fig. 5.4)
    published       only `keep` and `graft`, by the same estimate
    pro, distilled  what Domino found, larger while it is trained (thesis 5.3.5), or taught by the base network
    scratch         what Domino found, from scratch
    collapsed       what Domino found, collapsed before it is trained instead of behind (thesis Fig. 5.15)
    linear          what Domino found, merged blocks without an activation behind them (thesis Fig. 5.16)

What begins with the weights of the base network has had its epochs; what is from scratch gets as many more. All are
measured in one sitting. A ranking is of pairs of one seed, at each budget and over both, and needs a 95 % interval that
excludes zero.
`first` grafts the first n blocks (thesis Figs. 5.2, 5.3).

Other networks to compress (`--model`), a file each: `resnet20` of basic blocks, whose merging makes them dearer, and
`lightnet`, one that LightNAS found (thesis 5.3.6).

Reduced: 20 px, width 0.5, 20,000 images; with 5,000 the base networks stayed below their floor (52 %). Full: all
images, 32 px, width 1, on a GPU. What is measured (fit, choose, sitting) wants a quiet machine; Torch-Pruning has to be
installed for `choose` and for the training of what it pruned.

    python benchmarks/domino.py [--full] [--model NAME] [--stage NAME] [--seed S] [--network NAME ...]
    python benchmarks/domino.py [--full] figure     # docs/img/domino.svg
"""

from __future__ import annotations

import math
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

import networks
import sartor
from common import CACHE, RESULTS, Results, interval, measured_on, parser
from sartor import workflow
from sartor.core import Budget, Unreachable
from sartor.core.restricted import Lifted, Restricted
from sartor.predictors import load
from sartor.quality.estimate import Estimate
from sartor.quality.sampling import QUICK
from sartor.quality.supernet import SupernetScore, train_supernet
from sartor.reparam.fold import deployed
from sartor.report.style import CYCLE, INK, MUTED, canvas, quiet, styled
from sartor.runs import Run, read_json, write_json
from sartor.spaces.complexity import Complexity
from sartor.spaces.grafts import Grafts
from sartor.targets.store import Store
from sartor.training.distil import Distilled
from sartor.training.loop import train
from sartor.training.recipe import Recipe
from sartor.training.tasks import for_search
from sartor.workflow.measuring import around

STAGES, SEEDS = ("fit", "base", "grades", "choose", "further", "sitting", "train", "first"), (0, 1, 2)
CORE = ("domino", "width", "pruned", "as it was")
EXTRA = ("random", "published", "pro", "distilled", "scratch", "layers", "collapsed", "linear")
SPEEDUPS, FURTHER = (1.5, 2.2), (1.25, 1.8)
LIMITS = (*SPEEDUPS, *FURTHER)
MODELS: dict[str, tuple[dict[str, float], tuple[int, ...]]] = {  # what of the setting is another; seeds
    "mobilenet_v2": ({}, SEEDS),
    "resnet20": ({"width": 1.0}, SEEDS),
    "lightnet": ({}, SEEDS[:1]),
}
RATIOS = [round(0.04 * i, 2) for i in range(1, 22)]
REDUCED: dict[str, Any] = {
    "width": 0.5,
    "resolution": 20,
    "data": "parquet:{data}/cifar10?images=20000&resolution=20",
    "samples": 250,
    "networks": 100,
    "base": {"epochs": 15, "batch_size": 64, "lr": 0.05, "evaluate_every": 0},
    "supernet": {"epochs": 6, "batch_size": 64},
    "recipe": {"epochs": 7, "batch_size": 64, "lr": 0.02, "evaluate_every": 0},
    "floor": 60.0,
}
FULL: dict[str, Any] = {
    "width": 1.0,
    "resolution": 32,
    "data": "parquet:{data}/cifar10",
    "samples": 250,
    "networks": 150,
    "base": {"epochs": 16, "batch_size": 256, "lr": 0.2, "evaluate_every": 0},
    "supernet": {"epochs": 5, "batch_size": 256},
    "recipe": {"epochs": 8, "batch_size": 256, "lr": 0.05, "evaluate_every": 0},
    "floor": 90.0,
}


T = TypeVar("T")


def main() -> None:
    options = parser(__doc__)
    options.add_argument("what", nargs="?", default="measure", choices=["measure", "figure"])
    options.add_argument("--stage", choices=STAGES, action="append", help="stages, default all")
    options.add_argument("--model", choices=MODELS, default="mobilenet_v2", help="what is compressed")
    options.add_argument("--seed", type=int, choices=SEEDS, help="one seed")
    options.add_argument("--budget", type=int, choices=range(len(LIMITS)), help="one budget")
    options.add_argument("--network", choices=(*CORE, *EXTRA), action="append", help="of the trainings, default all")
    given = options.parse_args()
    if given.what == "figure":
        data = read_json(RESULTS / f"domino{'_full' if given.full else ''}.json")
        drawn(data["summary"]).savefig(Path(__file__).parent.parent / "docs" / "img" / "domino.svg", facecolor="white")
        return
    bench = Bench(FULL if given.full else REDUCED, given.model, "_full" if given.full else "")
    seeds = bench.seeds if given.seed is None else (given.seed,)
    budgets = range(len(LIMITS)) if given.budget is None else (given.budget,)
    for stage in given.stage or STAGES:
        if stage == "fit":
            bench.row({"what": "fit"}, bench.fit)
        elif stage == "sitting":
            for budget in budgets:
                bench.row({"what": "one sitting", "budget": budget}, partial(bench.sitting, budget))
        elif stage in ("base", "grades", "choose", "further"):
            for seed in seeds:
                bench.row({"what": stage, "seed": seed}, partial(getattr(bench, stage), seed))
        elif stage == "first":
            for count in grafted(len(bench.space().slots)):
                bench.row({"what": "first", "blocks": count}, partial(bench.first, count))
        else:
            for name in given.network or (*CORE, *EXTRA):
                for seed in seeds:
                    for budget in budgets if name != "as it was" else (0,):
                        if name not in CORE and budget >= len(SPEEDUPS):
                            continue
                        cell = {"what": "train", "network": name, "seed": seed, "budget": budget}
                        bench.row(cell, partial(bench.train, name, seed, budget))
    bench.results.summarise(**summary(bench.results.data["rows"], bench.setting["floor"]))


class Bench:
    """The stages, in order; each reads the rows of those before it."""

    def __init__(self, setting: dict[str, Any], model: str, suffix: str) -> None:
        torch.set_num_threads(1)
        other, self.seeds = MODELS[model]
        if model != "mobilenet_v2":
            suffix, setting = f"_{model}{suffix}", {**setting, **other, "model": model}
        self.model, self.setting, self.device = model, setting, "cuda" if torch.cuda.is_available() else "cpu"
        self.target = sartor.targets.get("onnxruntime:cpu?threads=1")
        root = os.environ.get("SARTOR_DATA", "../shared/data")
        self.task: Any = sartor.tasks.get(setting["data"].format(data=root), self.device)
        self.results = Results(
            f"domino{suffix}",
            "Domino ahead of width scaling, pruning and random grafts at the same measured latency, speed-ups >= 1.5",
            {
                **setting,
                "target": measured_on(f"domino{suffix}", self.target.id),
                "data_name": self.task.describe(),
                "seeds": self.seeds,
                "speed-ups": SPEEDUPS,
            },
        )
        self.row = self.results.row
        self.files = CACHE / f"domino{suffix}"
        self.files.mkdir(parents=True, exist_ok=True)
        self.store = Store(self.files / "measurements.db")

    def needed(self, **cell: Any) -> dict[str, Any]:
        row = self.results.get(cell)
        if row is None:
            raise SystemExit(f"{cell} is missing: run the stage before.")
        return row

    def space(self, seed: int | None = None, **options: Any) -> Grafts:
        """seed: with the weights of that base network."""
        options = {"weights": None if seed is None else os.path.relpath(self.weights(seed)), **options}
        model = options.pop("model", f"networks.py:{self.model}?width={options.pop('width', self.setting['width'])}")
        return Grafts(model, resolution=self.setting["resolution"], **options)

    def fresh(self) -> nn.Module:
        made: nn.Module = getattr(networks, self.model)(self.setting["width"])
        return made

    def limit(self, budget: int) -> float:
        own: float = self.needed(what="fit")["as it was (ms)"]
        return limited(own)[budget]

    def width(self, budget: int) -> str:
        widths = self.needed(what="fit")["widths"]
        return nearest({w: widths[w] for w in sorted(widths, key=float, reverse=True)}, self.limit(budget))

    def latency(self) -> Any:
        """The predictor of latency, fitted where this machine has it not.

        A fifth of the samples near the first limit, as `sartor compress` has it; those of MobileNetV2 and ResNet-20,
        whose grafts are not several times as dear as what they replace, were fitted without.
        """
        file, space = self.files / "latency.safetensors", self.space()
        if not file.exists():
            (own,) = self.measured([(space, space.unchanged)], "as it was")
            options: dict[str, Any] = {"samples": self.setting["samples"], "near": limited(own)[0], "store": self.store}
            fit = workflow.fit_predictor("auto", space, self.target, **options)
            fit.predictor.save(file)
            write_json(self.files / "latency.json", fit.report)
        return load(file, space=space)

    def measured(self, members: list[Any], sitting: str) -> list[float]:
        rows = workflow.compare(members, self.target, ["latency_ms"], self.store, sitting)
        return [float("inf") if row["latency_ms"] is None else float(row["latency_ms"]) for row in rows]

    def work(self, name: str, seed: int) -> Any:
        """A run that a killed process goes on with, on the disk of this machine alone."""
        return Run(self.files / "runs" / f"{name}-{seed}", {"benchmark": "domino", "of": name}, seed)

    # ------------------------------------------------------------------ stages

    def fit(self) -> dict[str, Any]:
        """The predictor of latency, the limits, and what needs no weights: widths, and grafts at random."""
        space, latency = self.space(), self.latency()
        report = read_json(self.files / "latency.json")
        (own,) = self.measured([(space, space.unchanged)], "as it was")
        limits = limited(own)[: len(SPEEDUPS)]
        widths = sorted({round(self.setting["width"] * 0.96**i, 4) for i in range(1, 46)}, reverse=True)
        scaled = [self.space(width=width) for width in widths]
        times = self.measured([(one, one.unchanged) for one in scaled], "widths")
        counts = grafted(len(space.slots))
        first = self.measured([(space, tuple(int(i < n) for i in range(len(space.slots)))) for n in counts], "first")
        near = [around(space, latency, limit, len(self.seeds)) for limit in limits]
        return {
            "as it was (ms)": own,
            "limits (ms)": limits,
            "predictors": report["rows"],
            "default": report["default"],
            "slots": [[slot.name, *slot.candidates] for slot in space.slots],
            "refused": space.anatomy.refused,
            "widths": {str(width): ms for width, ms in zip(widths, times)},
            "first blocks grafted (ms)": dict(zip(map(str, counts), first)),
            "random": [[list(arch) for arch in some] for some in near],
        }

    def base(self, seed: int) -> dict[str, Any]:
        macs = Complexity(self.space(), "macs")([self.space().unchanged])
        return {"accuracy": self.accuracy(self.weights(seed)), "macs": float(macs[0])}

    def weights(self, seed: int) -> Path:
        """The base network's, trained where this machine has them not (again, if the row came from another)."""
        file = self.files / f"base-{seed}.safetensors"
        if file.exists():
            return file
        recipe = Recipe().override(self.setting["base"])
        with self.work("base", seed) as run:
            torch.manual_seed(run.torch_seed("weights"))
            network = self.fresh()
            found = train(network, self.task, recipe, run.stage("train"), split="train")
        from safetensors.torch import save_file

        state = {name: value.cpu().contiguous() for name, value in network.state_dict().items()}
        save_file(state, file, {"accuracy": str(found["value"])})
        return file

    @staticmethod
    def accuracy(file: Path) -> float:
        from safetensors import safe_open

        with safe_open(file, "pt") as stored:
            return float(stored.metadata()["accuracy"])

    def grades(self, seed: int) -> dict[str, Any]:
        """Steps 2 and 3 of the method, kept, so that all budgets and kinds of candidates have the same."""
        space, view = self.space(seed), for_search(self.task)
        with self.work("grades", seed) as run:
            supernet = train_supernet(space, view, run.stage("supernet"), lr=0.05, **self.setting["supernet"])
            archs = list(dict.fromkeys(space.sample(run.rng("networks"), self.setting["networks"])))
        grades = SupernetScore(space, supernet, view)(archs)
        return {"architectures": [list(arch) for arch in archs], "grades": grades.tolist()}

    def choose(self, seed: int) -> dict[str, Any]:
        """Step 4, and the pruned networks of the same latency."""
        space, latency = self.space(), self.latency()
        estimate = self.estimate(seed)
        out: dict[str, Any] = {"explained": estimate.explained, "domino": [], "published": [], "layers": []}
        for limit in (self.limit(i) for i in range(len(SPEEDUPS))):
            out["domino"].append(self.found(estimate, limit, seed))
            for name, words in (("published", ("keep", "graft")), ("layers", ("keep", "skip"))):
                kept = {i: [j for j, w in enumerate(s.candidates) if w in words] for i, s in enumerate(space.slots)}
                only = Restricted(space, kept)
                budget, quality = Budget(Lifted(latency, only, only.lifts), limit), Lifted(estimate, only, only.lifts)
                try:
                    found = sartor.search("domino", only, None, budget=budget, objectives=[quality], seed=seed)
                except Unreachable:
                    out[name].append(None)
                else:
                    out[name].append(list(only.lift(found.architecture)))
        files = [self.prune(seed, ratio) for ratio in RATIOS]
        members = [self._pruned(file) for file in files]
        times = self.measured(members, f"pruned {seed}")
        out["pruned (ms)"] = dict(zip(map(str, RATIOS), times))
        return out

    def further(self, seed: int) -> dict[str, Any]:
        """Step 4 at the further limits."""
        limits = [self.limit(len(SPEEDUPS) + i) for i in range(len(FURTHER))]
        return {"limits (ms)": limits, "domino": [self.found(self.estimate(seed), limit, seed) for limit in limits]}

    def estimate(self, seed: int) -> Estimate:
        known = self.needed(what="grades", seed=seed)
        archs = [tuple(arch) for arch in known["architectures"]]
        return Estimate(self.space(), archs, np.array(known["grades"]), metric=self.task.metric, members=QUICK)

    def found(self, estimate: Estimate, limit: float, seed: int) -> list[int] | None:
        """None where no network keeps the limit."""
        budget = Budget(self.latency(), limit)
        try:
            found = sartor.search("domino", self.space(), None, budget=budget, objectives=[estimate], seed=seed)
        except Unreachable:
            return None
        return list(found.architecture)

    def prune(self, seed: int, ratio: float) -> Path:
        """The base network with that share of its channels gone."""
        file = self.files / f"pruned-{seed}-{ratio}.safetensors"
        if not file.exists():
            import torch_pruning
            from safetensors.torch import load_file, save_file

            network = self.fresh()
            network.load_state_dict(load_file(self.weights(seed)))
            edge = self.setting["resolution"]
            torch_pruning.pruner.BasePruner(
                network.eval(),
                torch.randn(1, 3, edge, edge),
                importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
                global_pruning=True,
                isomorphic=True,
                pruning_ratio=ratio,
                round_to=8,
                ignored_layers=[layer for layer in network.modules() if isinstance(layer, nn.Linear)],
            ).step()
            save_file({name: value.contiguous() for name, value in network.state_dict().items()}, file)
        return file

    def _pruned(self, file: Path) -> tuple[Grafts, tuple[int, ...]]:
        model = f"networks.py:pruned?file={os.path.relpath(file)}&model={self.model}&width={self.setting['width']}"
        space = self.space(model=model, weights=os.path.relpath(file))
        return space, space.unchanged

    def member(self, name: str, seed: int, budget: int) -> tuple[Grafts, tuple[int, ...]] | None:
        """The network of that name; None where nothing of its kind keeps the limit."""
        if name == "width":
            space = self.space(width=self.width(budget))
            return space, space.unchanged
        if name == "as it was":
            space = self.space(seed)
            return space, space.unchanged
        if name == "random":
            return self.space(seed), tuple(self.needed(what="fit")["random"][budget][seed])
        chosen = self.needed(what="choose", seed=seed)
        if name == "pruned":
            times = {ratio: chosen["pruned (ms)"][str(ratio)] for ratio in RATIOS}
            return self._pruned(self.prune(seed, nearest(times, self.limit(budget))))
        options: dict[str, Any] = {"pro": {"wider": 2, "deeper": 1}, "linear": {"last": "leave"}}.get(name, {})
        if budget >= len(SPEEDUPS):
            chosen, budget = self.needed(what="further", seed=seed), budget - len(SPEEDUPS)
        arch = chosen[name if name in ("published", "layers") else "domino"][budget]
        own = None if name == "scratch" else seed
        return None if arch is None else (self.space(own, **options), tuple(arch))

    def sitting(self, budget: int) -> dict[str, Any]:
        """All networks of a budget, of all seeds, measured together."""
        names = (*CORE, *(("random", "published", "layers") if budget < len(SPEEDUPS) else ()))
        members = {
            (name, seed): self.member(name, seed, budget)
            for name in names
            for seed in (self.seeds if name not in ("as it was", "width") else (0,))
        }
        there = {key: member for key, member in members.items() if member is not None}
        times = dict(zip(there, self.measured(list(there.values()), f"sitting {budget}")))
        return {
            name: [times.get((name, seed if name not in ("as it was", "width") else 0)) for seed in self.seeds]
            for name in names
        }

    def train(self, name: str, seed: int, budget: int) -> dict[str, Any]:
        member = self.member(name, seed, budget)
        if member is None:
            return {"accuracy": None}
        space, arch = member
        task: Any = self.task
        recipe = Recipe().override(self.setting["recipe"])
        with tempfile.TemporaryDirectory() as scratch, Run(Path(scratch), {"b": "domino"}, seed) as run:
            torch.manual_seed(run.torch_seed("weights"))
            if name in ("width", "scratch"):
                network = space.network(arch)
                recipe = Recipe().override(
                    {**self.setting["base"], "epochs": self.setting["base"]["epochs"] + recipe.epochs}
                )
            else:
                network = space.tuned(arch)
            if name == "distilled":
                task = Distilled(task, self.space(seed).tuned(space.unchanged))
            elif name == "collapsed":
                network = deployed(network)
            found = train(network, task, recipe, run.stage("train"))
        began = {} if name in ("width", "scratch") else {"base": self.accuracy(self.weights(seed))}
        return {
            "accuracy": found["value"],
            **began,
            "seconds": found["seconds"],
            "params": found["params"],
            "macs": float(Complexity(space, "macs")([arch])[0]),
        }

    def first(self, count: int) -> dict[str, Any]:
        """The first blocks grafted; one seed."""
        space = self.space(0)
        arch = tuple(int(i < count) for i in range(len(space.slots)))
        with tempfile.TemporaryDirectory() as scratch, Run(Path(scratch), {"b": "domino"}, 0) as run:
            torch.manual_seed(run.torch_seed("weights"))
            found = train(space.tuned(arch), self.task, Recipe().override(self.setting["recipe"]), run.stage("train"))
        return {
            "architecture": list(arch),
            "accuracy": found["value"],
            "base": self.accuracy(self.weights(0)),
        }


def limited(own: float) -> list[float]:
    """All limits (ms), of the latency of the network as it was."""
    return [float(f"{own / speedup:.4g}") for speedup in LIMITS]


def nearest(times: dict[T, float], limit: float) -> T:
    """Whose latency is nearest to the limit, of networks from the largest to the smallest.

    Latency does not fall with every channel: one counts where it is more than 2 % faster than all larger ones.
    """
    names = list(times)
    worth = [a for i, a in enumerate(names) if all(times[a] < 0.98 * times[b] for b in names[:i])]
    return min(worth, key=lambda name: abs(times[name] - limit))


def grafted(blocks: int) -> list[int]:
    """How many of the first blocks are grafted."""
    return sorted({*range(0, blocks, 3), blocks})


def summary(rows: list[dict[str, Any]], floor: float) -> dict[str, Any]:
    """By budget and network, and in pairs over all budgets and seeds."""
    sat = {row["cell"]["budget"]: row for row in rows if row["cell"]["what"] == "one sitting"}
    fit = next((row for row in rows if row["cell"]["what"] == "fit"), None)
    tests = {
        (row["cell"]["budget"], row["cell"]["seed"], row["cell"]["network"]): row["accuracy"]
        for row in rows
        if row["cell"]["what"] == "train" and row["accuracy"] is not None
    }
    own = math.nan if fit is None else fit["as it was (ms)"]
    limits = dict(enumerate(limited(own)))
    by_budget, pairs = [], []
    for budget in sorted({budget for budget, _, _ in tests}):
        for name in (*CORE, *EXTRA):
            mine = {seed: value for (b, seed, network), value in tests.items() if (b, network) == (budget, name)}
            if not mine:
                continue
            of = name if budget in sat and name in sat[budget] else "domino"
            times = [sat[budget][of][seed] for seed in mine] if budget in sat else []
            by_budget.append(
                {
                    "limit (ms)": limits.get(budget),
                    "network": name,
                    "seeds": len(mine),
                    "accuracy": interval(list(mine.values())),
                    "latency (ms)": float(np.mean(times)) if times else None,
                    "speed-up": float(np.mean([o / t for o, t in zip(sat[budget]["as it was"], times)]))
                    if times
                    else None,
                }
            )
    for name in (*CORE, *EXTRA):
        if name in ("domino", "as it was"):
            continue
        for of in ([0, 1], *([budget] for budget in limits)):
            known = {
                (budget, seed): tests[budget, seed, "domino"] - value
                for (budget, seed, network), value in tests.items()
                if network == name and budget in of and (budget, seed, "domino") in tests
            }
            apart = list(known.values())
            if len(apart) > 1 and {budget for budget, _ in known} == set(of):
                own = interval(apart)
                verdict = "ahead" if own["low"] > 0 else "behind" if own["high"] < 0 else "undecided"
                where = "the first two" if len(of) > 1 else f"{limits[of[0]]} ms"
                pairs.append(
                    {
                        "domino against": name,
                        "limits": where,
                        "pairs": len(apart),
                        "difference": own,
                        "verdict": verdict,
                    }
                )
    bases = [row["accuracy"] for row in rows if row["cell"]["what"] == "base"]
    return {
        "rows": by_budget,
        "pairs": pairs,
        "floor": floor,
        "bases": bases,
        "floor reached": bool(bases) and min(bases) >= floor,
        "first blocks grafted": [
            {
                "blocks": row["cell"]["blocks"],
                "accuracy": row["accuracy"],
                "latency (ms)": None if fit is None else fit["first blocks grafted (ms)"][str(row["cell"]["blocks"])],
            }
            for row in rows
            if row["cell"]["what"] == "first"
        ],
    }


@styled
def drawn(summary: dict[str, Any]) -> Any:
    """Accuracy against measured latency; and of the first blocks grafted."""
    figure = canvas(3.6)
    left, right = figure.subplots(1, 2)
    for ax in (left, right):
        quiet(ax, grid="both")
    rows = [row for row in summary["rows"] if row["seeds"] > 1 and row["latency (ms)"] is not None]
    there = {row["network"] for row in rows}
    shown = [name for name in (*CORE, "scratch", "layers", "random", "published") if name in there]
    for name, colour in zip(shown, (*CYCLE, INK, MUTED)):
        mine = sorted((row for row in rows if row["network"] == name), key=lambda row: row["latency (ms)"])
        x, y = [r["latency (ms)"] for r in mine], [r["accuracy"]["mean"] for r in mine]
        spread = [r["accuracy"]["std"] for r in mine]
        left.errorbar(x, y, spread, marker="o", markersize=4, linewidth=1, color=colour, label=name, capsize=2)
    left.set(xlabel="measured latency (ms)", ylabel="accuracy on CIFAR-10 (JPEG), %", title="mean and deviation")
    left.legend(frameon=False, fontsize=7)
    first = summary["first blocks grafted"]
    x, y = [row["latency (ms)"] for row in first], [row["accuracy"] for row in first]
    right.plot(x, y, marker="o", markersize=4, color=CYCLE[0])
    for row in first:
        label = str(row["blocks"])
        right.annotate(label, (row["latency (ms)"], row["accuracy"]), textcoords="offset points", xytext=(4, 4))
    right.set(xlabel="measured latency (ms)", ylabel="accuracy, %", title="the first blocks grafted, how many")
    return figure


if __name__ == "__main__":
    main()
