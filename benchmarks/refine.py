"""Channels refined on CIFAR-10 (JPEG) at equal measured latency: LightNet, LightNet++, random channels, uniform width.

Must show (issue LightNAS++, 3). The LightNets are those that `accuracy.py` found, two budgets, three seeds; each gets a
predictor of its channel space, fitted on measured configurations, and an evolution at its budget. Random channels: one
configuration that lands on the same budget. Width: the uniform MobileNetV2-like network of the nearest latency. All are
trained with one recipe and measured in one sitting; rows say by how much latencies are apart. Differences are taken in
pairs of one budget and seed, and are ranked if their 95 % interval excludes zero.

Grades are from 3 epochs over 1,024 images (reduced). `refined by vote` is found by training-free proxies instead
(`quality.proxies`, vote), and measured beside the network as it was in a sitting of their own. The reduced setting is
that of `accuracy.py`: 20 px, width 0.5, 5,000 images, with its floor, which takes 30 epochs instead of 20: one width
reference in six was below it.

    python benchmarks/refine.py [--full] [--stage fit|search|sitting|train] [--budget K] [--seed S] [--network NAME ...]
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sartor
from accuracy import FULL as ACCURACY_FULL
from accuracy import REDUCED as ACCURACY
from common import CACHE, RESULTS, Results, interval, measured_on, parser
from sartor import workflow
from sartor.choose.evolve import Population, Within
from sartor.core import Budget
from sartor.methods import SETTINGS
from sartor.predictors import load
from sartor.runs import Run
from sartor.spaces.channels import Channels
from sartor.spaces.uniform import Uniform
from sartor.targets.store import Store
from sartor.training.recipe import Recipe

STAGES, SEEDS, NETWORKS = ("fit", "search", "sitting", "train"), (0, 1, 2), ("as it was", "refined", "random", "width")
VOTED = "refined by vote"
TOLERANCE = 0.02
REDUCED = {
    **ACCURACY,
    "recipe": {**ACCURACY["recipe"], "epochs": 30},
    "samples": 300,
    "limits": [0.19, 0.241],
    "search": {"batches": 16, "tolerance": TOLERANCE},
}
FULL = {**ACCURACY_FULL, "samples": 1000, "limits": None, "search": {"tolerance": TOLERANCE}}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--stage", choices=STAGES, help="one stage; what is measured wants a quiet machine")
    options.add_argument("--budget", type=int, choices=(0, 1), help="one budget")
    options.add_argument("--seed", type=int, choices=SEEDS, help="one seed")
    options.add_argument("--network", choices=(*NETWORKS, VOTED), action="append", help="of the trainings, default all")
    given = options.parse_args()
    setting: dict[str, Any] = FULL if given.full else REDUCED
    stages = STAGES if given.stage is None else (given.stage,)
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    space: Any = sartor.spaces.get(setting["space"])
    target = sartor.targets.get("onnxruntime:cpu?threads=1")
    root = os.environ.get("SARTOR_DATA", "../shared/data")
    task = sartor.tasks.get(setting["data"].format(data=root), device)
    suffix = "_full" if given.full else ""
    found = json.loads((RESULTS / f"accuracy{suffix}.json").read_text())["rows"]
    nets = {
        (row["cell"]["limit_ms"], row["cell"]["seed"]): tuple(row["lightnas"])
        for row in found
        if row["cell"]["what"] == "search"
    }
    limits = setting["limits"] or sorted({limit for limit, _ in nets})[:2]
    engine = SETTINGS["lightnas-channels"].of(setting["search"])
    results = Results(
        f"refine{suffix}",
        "accuracy of LightNet, LightNet++, random channels and uniform width at the same measured latency; 2 budgets, "
        "3 seeds; reported also where refining does not win",
        {
            **setting,
            "search": engine.model_dump(),
            "target": measured_on(f"refine{suffix}", target.id),
            "data_name": task.describe(),
            "seeds": SEEDS,
        },
    )
    store = Store(CACHE / "refine.db")
    cells = [
        {"limit_ms": limit, "seed": seed}
        for limit in (limits if given.budget is None else [limits[given.budget]])
        for seed in (SEEDS if given.seed is None else [given.seed])
    ]
    widths = [round(0.15 * 1.05**i, 3) for i in range(45)]
    same = {k: v for k, v in space.spec().items() if k not in ("space", "width", "resolution")}
    uniform = Uniform(**same, widths=widths, resolutions=[space.spec()["resolution"]])

    def channels(cell: dict[str, Any]) -> Channels:
        return Channels(space, nets[cell["limit_ms"], cell["seed"]])

    def file(cell: dict[str, Any]) -> Path:
        return CACHE / f"refine{suffix}_{cell['limit_ms']}_{cell['seed']}.safetensors"

    def fitted(cell: dict[str, Any]) -> dict[str, Any]:
        fit = workflow.fit_predictor(
            "auto", channels(cell), target, samples=setting["samples"], near=cell["limit_ms"], store=store
        )
        fit.predictor.save(file(cell))
        return {"predictors": fit.report["rows"], "default": fit.report["default"]}

    def search(cell: dict[str, Any]) -> dict[str, Any]:
        own = channels(cell)
        budget = Budget(load(file(cell), space=own), cell["limit_ms"])
        stage = CACHE / f"refine{suffix}" / f"{cell['limit_ms']}-{cell['seed']}"
        with Run(stage, {"benchmark": "refine", **cell}, cell["seed"]) as run:
            best = sartor.search("lightnas-channels", own, task, budget=budget, run=run, **setting["search"])
            journal = run.stage("search").journal()
            within = Within(own, [Budget(budget.score, budget.limit * (1 - TOLERANCE / 2), "at", TOLERANCE / 2)])
            (other, *_) = Population(own, within=within, seed=run.torch_seed("random") % 2**32).ask()
        costs = [budget.score([tuple(a) for a in line["members"]]) / budget.limit for line in journal]
        return {
            "refined": list(best.architecture),
            "random": list(other),
            "score": best.extras["score"],
            "unrefined score": best.extras["unrefined"],
            "best": [line["best"] for line in journal],
            "asked": journal[-1]["asked"],
            "members from the limit (%)": [
                100 * float(min(map(min, costs)) - 1),
                100 * float(max(map(max, costs)) - 1),
            ],
        }

    def voted(cell: dict[str, Any]) -> dict[str, Any]:
        own = channels(cell)
        budget = Budget(load(file(cell), space=own), cell["limit_ms"])
        stage = CACHE / f"refine{suffix}" / f"{cell['limit_ms']}-{cell['seed']}-vote"
        chosen = {**setting["search"], "proxy": "vote"}
        with Run(stage, {"benchmark": "refine", "proxy": "vote", **cell}, cell["seed"]) as run:
            best = sartor.search("lightnas-channels", own, task, budget=budget, run=run, **chosen)
        return {"refined": list(best.architecture), **{k: best.extras[k] for k in ("score", "unrefined")}}

    def beside(cell: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
        own = channels(cell)
        archs = [own.unscaled, tuple(row["refined"])]
        rows = workflow.compare([(own, arch) for arch in archs], target, ["latency_ms"], store, f"vote {cell}")
        names = ("as it was", VOTED)
        return {n: {"architecture": list(a), **one} for n, a, one in zip(names, archs, rows)}

    def sitting(cell: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
        own = channels(cell)
        scaled = list({uniform.key(a): a for a in uniform.enumerate()}.values())
        asked = [(own, own.unscaled), (own, tuple(row["refined"])), (own, tuple(row["random"]))]
        rows = workflow.compare(
            [*asked, *((uniform, a) for a in scaled)], target, ["latency_ms"], store, f"sitting {cell}"
        )
        ms = np.array([one["latency_ms"] or np.inf for one in rows])
        nearest = int(np.argmin(np.abs(ms[3:] - ms[0])))
        archs = [arch for _, arch in asked] + [scaled[nearest]]
        times = [*ms[:3], ms[3 + nearest]]
        return {n: {"architecture": list(a), "latency_ms": float(t)} for n, a, t in zip(NETWORKS, archs, times)}

    def trained(cell: dict[str, Any], name: str, arch: tuple[int, ...]) -> dict[str, Any]:
        own, same = uniform.base(arch) if name == "width" else (channels(cell), arch)
        with tempfile.TemporaryDirectory() as scratch, Run(Path(scratch), {"b": "refine"}, cell["seed"]) as run:
            result = workflow.train_network(own, same, task, Recipe().override(setting["recipe"]), run)
        return {"accuracy": result["value"], "macs": result["macs"], "params": result["params"]}

    for cell in cells if "fit" in stages else []:
        results.row({**cell, "what": "fit"}, lambda c=cell: fitted(c))
    for cell in cells if "search" in stages else []:
        results.row({**cell, "what": "search"}, lambda c=cell: search(c))
        results.row({**cell, "what": "search", "proxy": "vote"}, lambda c=cell: voted(c))
    for cell in cells if "sitting" in stages else []:
        row = results.get({**cell, "what": "search"})
        if row is not None:
            results.row({**cell, "what": "one sitting"}, lambda c=cell, r=row: sitting(c, r))
        row = results.get({**cell, "what": "search", "proxy": "vote"})
        if row is not None:
            results.row({**cell, "what": "one sitting", "proxy": "vote"}, lambda c=cell, r=row: beside(c, r))
    for cell in cells if "train" in stages else []:
        row = (results.get({**cell, "what": "one sitting"}) or {}) | (
            results.get({**cell, "what": "one sitting", "proxy": "vote"}) or {}
        )
        for name in (name for name in given.network or (*NETWORKS, VOTED) if name in row):
            arch = tuple(row[name]["architecture"])
            key = {**cell, "what": "train", "network": name}
            results.row(key, lambda c=cell, n=name, a=arch: trained(c, n, a))
    results.summarise(**summary(results.data["rows"], setting["floor"]))


def summary(rows: list[dict[str, Any]], floor: float) -> dict[str, Any]:
    """By budget and network, and in pairs over all budgets and seeds."""
    apart_by = {
        (r["cell"]["limit_ms"], r["cell"]["seed"], name): 100 * (one["latency_ms"] / r["as it was"]["latency_ms"] - 1)
        for r in rows
        if r["cell"]["what"] == "one sitting"
        for name, one in r.items()
        if name != "cell" and name != "machine"
    }
    tests = {
        (r["cell"]["limit_ms"], r["cell"]["seed"], r["cell"]["network"]): r["accuracy"]
        for r in rows
        if r["cell"]["what"] == "train"
    }
    searches = [r for r in rows if r["cell"]["what"] == "search" and "proxy" not in r["cell"]]
    by_budget = []
    for limit in sorted({limit for limit, _, _ in tests}):
        for name in (*NETWORKS, VOTED):
            mine = {seed: value for (at, seed, network), value in tests.items() if (at, network) == (limit, name)}
            if mine:
                apart = [apart_by[limit, seed, name] for seed in mine]
                accuracy = interval(list(mine.values())) if len(mine) > 1 else next(iter(mine.values()))
                by_budget.append(
                    {
                        "budget (ms)": limit,
                        "network": name,
                        "seeds": len(mine),
                        "accuracy": accuracy,
                        "latency against as it was (%)": float(np.mean(apart)),
                    }
                )
    pairs = []
    for ours in ("refined", VOTED):
        for name in (*NETWORKS, VOTED):
            apart = [
                value - tests[limit, seed, name]
                for (limit, seed, network), value in tests.items()
                if network == ours and (limit, seed, name) in tests
            ]
            if name != ours and len(apart) > 1:
                own = interval(apart)
                verdict = "better" if own["low"] > 0 else "worse" if own["high"] < 0 else "undecided"
                row = {"network": ours, "against": name, "pairs": len(apart), "difference": own, "verdict": verdict}
                pairs.append(row)
    reference = [value for (_, _, network), value in tests.items() if network == "width"]
    return {
        "rows": by_budget,
        "pairs": pairs,
        "floor": floor,
        "floor reached": bool(reference) and min(reference) >= floor,
        "searches": len(searches),
        "members from the limit, least and most (%)": [
            min((r["members from the limit (%)"][0] for r in searches), default=None),
            max((r["members from the limit (%)"][1] for r in searches), default=None),
        ],
    }


if __name__ == "__main__":
    main()
