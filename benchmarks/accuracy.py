"""Accuracy at equal measured latency on CIFAR-10 (JPEG): LightNAS, random, width- and resolution-scaled.

Must show 5. Per budget and seed: a search, one random architecture that lands on the budget, the uniform network scaled
in width and the one scaled in resolution (Fig. 4.16) to the found network's latency; all trained with one recipe and
measured in one sitting. Equal latency is within 3 %; rows say by how much each is apart. A ranking needs disjoint 95 %
intervals over seeds, otherwise the summary says undecided; over all budgets, differences are taken in pairs of one
budget and seed, and their 95 % interval must exclude zero.

Reduced: 20 px, width 0.5, 5,000 training images; all 21 slots x 7 candidates. At 16 px (accuracy_below_floor.json) the
reference stayed below its floor. Full: all images, 32 px, width 1. The
network scaled in width is the reference: below the floor of accuracy a setting says nothing about architectures.

    python benchmarks/accuracy.py [--full] [--only K] [--seed S] [--stage NAME]    # budget 0 is the core
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sartor
from common import CACHE, Results, interval, parser
from sartor import workflow
from sartor.choose.solve import land, reachable
from sartor.core import Budget
from sartor.methods import SETTINGS
from sartor.predictors import load
from sartor.runs import Run
from sartor.spaces.uniform import Uniform
from sartor.targets.store import Store
from sartor.training.recipe import Recipe

SHARES, SEEDS = [0.45, 0.6, 0.8], [0, 1, 2]  # in order of worth; below 0.4 no width is narrow enough
STAGES = ("search", "sitting", "train")
RESOLUTIONS = list(range(8, 33))
REDUCED = {
    "space": "mobilenet:cifar?width=0.5&resolution=20",
    "data": "parquet:{data}/cifar10?images=5000&resolution=20",
    "samples": 400,
    "search": {"epochs": 20, "warmup_epochs": 6, "batch_size": 64, "lr": 0.05},
    "recipe": {"epochs": 20, "batch_size": 64, "evaluate_every": 0},
    "floor": 50.0,
}
FULL = {
    "space": "mobilenet:cifar",
    "data": "parquet:{data}/cifar10",
    "samples": 1000,
    "search": {"epochs": 90, "warmup_epochs": 10, "batch_size": 128},
    "recipe": {"epochs": 100, "batch_size": 128, "evaluate_every": 0},
    "floor": 90.0,
}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--only", type=int, choices=range(len(SHARES)), help="one budget")
    options.add_argument("--seed", type=int, choices=SEEDS, help="one seed")
    options.add_argument("--stage", choices=STAGES, help="one stage; what is timed wants a quiet machine")
    given = options.parse_args()
    setting = FULL if given.full else REDUCED
    stages = STAGES if given.stage is None else (given.stage,)
    torch.set_num_threads(torch.get_num_threads() if given.full else 1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    space, target = sartor.spaces.get(setting["space"]), sartor.targets.get("onnxruntime:cpu?threads=1")
    root = os.environ.get("SARTOR_DATA", "../shared/data")
    images = setting["data"].format(data=root)
    task = sartor.tasks.get(images, device)
    engine = SETTINGS["lightnas"]()
    results = Results(
        f"accuracy{'_full' if given.full else ''}",
        "accuracy at equal measured latency, 3 budgets, 3 seeds; reported also where LightNAS does not win",
        {
            **setting,
            "search": {**engine.model_dump(), **setting["search"]},
            "target": target.id,
            "data_name": task.describe(),
            "seeds": SEEDS,
            "shares": SHARES,
        },
    )
    store = Store(CACHE / "accuracy.db")
    file = CACHE / f"accuracy{'_full' if given.full else ''}.safetensors"
    if not file.exists():
        workflow.fit_predictor("auto", space, target, samples=setting["samples"], store=store).predictor.save(file)
    score = load(file, space=space)
    low, high = reachable(space, score)
    recipe = Recipe().override(setting["recipe"])
    options_of = {k: v for k, v in space.spec().items() if k not in ("space", "width", "resolution")}
    widths = [round(0.15 * 1.05**i, 3) for i in range(45)]
    by_width = Uniform(**options_of, widths=widths, resolutions=[space.spec()["resolution"]])
    by_resolution = Uniform(**options_of, widths=[space.spec()["width"]], resolutions=RESOLUTIONS)

    limits = [float(f"{low + share * (high - low):.3g}") for share in SHARES]
    limits = limits if given.only is None else [limits[given.only]]
    seeds = SEEDS if given.seed is None else [given.seed]
    cells = [{"limit_ms": limit, "seed": seed} for limit in limits for seed in seeds]

    def search(cell: dict[str, Any]) -> dict[str, Any]:
        budget, seed = Budget(score, cell["limit_ms"]), cell["seed"]
        with tempfile.TemporaryDirectory() as scratch, Run(scratch, {"benchmark": "accuracy"}, seed) as run:
            found = sartor.search("lightnas", space, task, budget=budget, run=run, **setting["search"])
            rng = run.rng("random")
            noise = tuple(rng.normal(size=len(slot)) for slot in space.slots)
            other = land(space, noise, [budget], start=space.sample(rng, 1)[0], rng=rng)
        return {"lightnas": list(found.architecture), "random": list(other.architecture)}

    def sitting(cells: list[dict[str, Any]], found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """All networks of the cells and every scaled one, side by side; per cell the scaled ones of equal latency."""
        names = ["lightnas", "random"]
        asked = [(space, tuple(row[name])) for row in found for name in names]
        scaled = {
            name: [(own, a) for a in {own.key(a): a for a in own.enumerate()}.values()]
            for name, own in (("width", by_width), ("resolution", by_resolution))
        }
        everyone = [*asked, *scaled["width"], *scaled["resolution"]]
        rows = workflow.compare(everyone, target, ["latency_ms"], store, f"sitting {cells}")
        ms = np.array([row["latency_ms"] or np.inf for row in rows])
        out = []
        for k in range(len(cells)):
            at = {name: 2 * k + i for i, name in enumerate(names)}
            start = len(asked)
            for name, members in scaled.items():
                near = np.abs(ms[start : start + len(members)] - ms[2 * k])
                at[name] = start + int(np.argmin(near))
                start += len(members)
            out.append({n: {"architecture": list(everyone[i][1]), "latency_ms": float(ms[i])} for n, i in at.items()})
        return out

    def trained(own: Any, arch: tuple[int, ...], seed: int) -> dict[str, Any]:
        member, same = own.base(arch) if isinstance(own, Uniform) else (own, arch)
        fed = task if member.resolution == task.shape[1] else _resized(images, member.resolution, device)
        with tempfile.TemporaryDirectory() as scratch, Run(Path(scratch), {"b": "accuracy"}, seed) as run:
            result = workflow.train_network(member, same, fed, recipe, run)
        return {"accuracy": result["value"], "macs": result["macs"], "params": result["params"]}

    if "search" in stages:
        for cell in cells:
            results.row({**cell, "what": "search"}, lambda c=cell: search(c))
    if "sitting" in stages:
        new = [c for c in cells if results.get({**c, "what": "one sitting"}) is None]
        found = [results.get({**c, "what": "search"}) for c in new]
        if new and all(found):
            for cell, row in zip(new, sitting(new, [f for f in found if f is not None])):
                results.row({**cell, "what": "one sitting"}, lambda r=row: r)
    for cell in cells if "train" in stages else []:
        row = results.get({**cell, "what": "one sitting"})
        if row is None:
            continue
        for name in ("lightnas", "random", "width", "resolution"):
            own = {"width": by_width, "resolution": by_resolution}.get(name, space)
            arch = tuple(row[name]["architecture"])
            key = {**cell, "what": "train", "network": name}
            results.row(key, lambda o=own, a=arch, s=cell["seed"]: trained(o, a, s))
    if given.seed is not None or "train" not in stages:  # the process that takes all of them sums up
        return
    rows = _summary(results.data["rows"])
    reference = [row["accuracy (%)"] for row in rows if row["network"] == "width"]
    reached = all(accuracy >= setting["floor"] for accuracy in reference)
    pairs = _pairs(results.data["rows"])
    results.summarise(rows=rows, pairs=pairs, floor_percent=setting["floor"], floor_reached=reached)


def _resized(reference: str, resolution: int, device: str) -> Any:
    head, _, query = reference.partition("?")
    options = [option for option in query.split("&") if option and not option.startswith("resolution=")]
    return sartor.tasks.get(f"{head}?{'&'.join([*options, f'resolution={resolution}'])}", device)


def _pairs(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """LightNAS minus each other network of the same budget and seed, over all that are finished."""
    trained = {
        (r["cell"]["limit_ms"], r["cell"]["seed"], r["cell"]["network"]): r["accuracy"]
        for r in rows
        if r["cell"]["what"] == "train"
    }
    out = []
    for name in ("random", "width", "resolution"):
        apart = [
            ours - trained[limit, seed, name]
            for (limit, seed, network), ours in trained.items()
            if network == "lightnas" and (limit, seed, name) in trained
        ]
        if len(apart) > 1:
            own = interval(apart)
            verdict = "better" if own["low"] > 0 else "worse" if own["high"] < 0 else "undecided"
            out.append(
                {
                    "LightNAS against": name,
                    "pairs": len(apart),
                    "difference (points)": own["mean"],
                    "low": own["low"],
                    "high": own["high"],
                    "verdict": verdict,
                }
            )
    return out


def _summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per budget and network: mean accuracy with its 95 % interval, latency against LightNAS, the verdict."""
    out = []
    for limit in dict.fromkeys(r["cell"]["limit_ms"] for r in rows):
        here = [r for r in rows if r["cell"]["limit_ms"] == limit]
        sat = {r["cell"]["seed"]: r for r in here if r["cell"]["what"] == "one sitting"}
        values = {
            name: [r["accuracy"] for r in here if r["cell"].get("network") == name]
            for name in ("lightnas", "random", "width", "resolution")
        }
        if not all(values.values()):  # another process is at it
            continue
        ours = interval(values["lightnas"])
        for name, numbers in values.items():
            own = interval(numbers)
            apart = [100 * (s[name]["latency_ms"] / s["lightnas"]["latency_ms"] - 1) for s in sat.values()]
            verdict = "" if name == "lightnas" else "undecided"
            if own["low"] > ours["high"]:
                verdict = "better than LightNAS"
            elif own["high"] < ours["low"]:
                verdict = "worse than LightNAS"
            out.append(
                {
                    "budget (ms)": limit,
                    "network": name,
                    "seeds": len(numbers),
                    "accuracy (%)": own["mean"],
                    "low": own["low"],
                    "high": own["high"],
                    "latency against LightNAS (%)": float(np.mean(apart)),
                    "verdict": verdict,
                }
            )
    return out


if __name__ == "__main__":
    main()
