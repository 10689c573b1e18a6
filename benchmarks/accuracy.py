"""Accuracy at equal measured latency on CIFAR-10 (JPEG): LightNAS, random, width- and resolution-scaled.

Must show 5. Per budget and seed: a search, one random architecture that lands on the budget, the uniform network scaled
in width and the one scaled in resolution (Fig. 4.16) to the found network's latency; all trained with one recipe and
measured in one sitting. Equal latency is within 3 %; rows say by how much each is apart. A ranking needs disjoint 95 %
intervals over seeds, otherwise the summary says undecided.

Reduced: 32 px, width 0.5, 8,000 training images; all 21 slots x 7 candidates. Full: all images, width 1.

    python benchmarks/accuracy.py [--full] [--core]       # --core: one budget only
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
from sartor.predictors import load
from sartor.runs import Run
from sartor.spaces.uniform import Uniform
from sartor.targets.store import Store
from sartor.training.recipe import Recipe

SHARES, SEEDS = [0.3, 0.15, 0.55], [0, 1, 2]  # in order of worth
RESOLUTIONS = [16, 20, 24, 28, 32, 36, 40, 48]
REDUCED = {
    "space": "mobilenet:cifar?width=0.5",
    "data": "parquet:{data}/cifar10?images=8000",
    "samples": 400,
    "search": {"epochs": 30, "warmup_epochs": 8, "batch_size": 64, "lr": 0.05},
    "recipe": {"epochs": 30, "batch_size": 64, "evaluate_every": 0},
}
FULL = {
    "space": "mobilenet:cifar",
    "data": "parquet:{data}/cifar10",
    "samples": 1000,
    "search": {"epochs": 90, "warmup_epochs": 10, "batch_size": 128},
    "recipe": {"epochs": 100, "batch_size": 128, "evaluate_every": 0},
}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--core", action="store_true")
    given = options.parse_args()
    setting = FULL if given.full else REDUCED
    device = "cuda" if torch.cuda.is_available() else "cpu"
    space, target = sartor.spaces.get(setting["space"]), sartor.targets.get("onnxruntime:cpu?threads=1")
    root = os.environ.get("SARTOR_DATA", "../shared/data")
    reference = setting["data"].format(data=root)
    task = sartor.tasks.get(reference, device)
    results = Results(
        f"accuracy{'_full' if given.full else ''}",
        "accuracy at equal measured latency, 3 budgets, 3 seeds; reported also where LightNAS does not win",
        {**setting, "target": target.id, "data_name": task.describe(), "seeds": SEEDS, "shares": SHARES},
    )
    CACHE.mkdir(parents=True, exist_ok=True)
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

    for share in SHARES[:1] if given.core else SHARES:
        limit = float(f"{low + share * (high - low):.3g}")
        budget = Budget(score, limit)
        for seed in SEEDS:
            cell = {"limit_ms": limit, "seed": seed}

            def search(seed: int = seed, budget: Budget = budget) -> dict[str, Any]:
                with tempfile.TemporaryDirectory() as scratch, Run(scratch, {"benchmark": "accuracy"}, seed) as run:
                    found = sartor.search("lightnas", space, task, budget=budget, run=run, **setting["search"])
                    rng = run.rng("random")
                    noise = tuple(rng.normal(size=len(slot)) for slot in space.slots)
                    other = land(space, noise, [budget], start=space.sample(rng, 1)[0], rng=rng)
                return {"lightnas": list(found.architecture), "random": list(other.architecture)}

            found = results.row({**cell, "what": "search"}, search)
            members: dict[str, tuple[Any, tuple[int, ...]]] = {
                "lightnas": (space, tuple(found["lightnas"])),
                "random": (space, tuple(found["random"])),
            }

            def sitting(members: dict[str, Any] = members, seed: int = seed, limit: float = limit) -> dict[str, Any]:
                for name, scaled in (("width", by_width), ("resolution", by_resolution)):
                    archs = list({scaled.key(a): a for a in scaled.enumerate()}.values())
                    everyone = [members["lightnas"], *((scaled, a) for a in archs)]
                    rows = workflow.compare(everyone, target, ["latency_ms"], store, f"{name} {limit} {seed}")
                    ms = [row["latency_ms"] or np.inf for row in rows]
                    members[name] = (scaled, archs[int(np.argmin(np.abs(np.asarray(ms[1:]) - ms[0])))])
                rows = workflow.compare(list(members.values()), target, ["latency_ms"], store, f"all {limit} {seed}")
                return {
                    name: {"architecture": list(a), "latency_ms": row["latency_ms"]}
                    for (name, (_, a)), row in zip(members.items(), rows)
                }

            measured = results.row({**cell, "what": "one sitting"}, sitting)
            for name in ("lightnas", "random", "width", "resolution"):
                own = {"width": by_width, "resolution": by_resolution}.get(name, space)
                arch = tuple(measured[name]["architecture"])

                def trained(own: Any = own, arch: tuple[int, ...] = arch, seed: int = seed) -> dict[str, Any]:
                    member, same = own.base(arch) if isinstance(own, Uniform) else (own, arch)
                    fed = task if member.resolution == task.shape[1] else _resized(reference, member.resolution, device)
                    with tempfile.TemporaryDirectory() as scratch, Run(Path(scratch), {"b": "accuracy"}, seed) as run:
                        result = workflow.train_network(member, same, fed, recipe, run)
                    return {"accuracy": result["value"], "macs": result["macs"], "params": result["params"]}

                results.row({**cell, "what": "train", "network": name}, trained)
    results.summarise(rows=_summary(results.data["rows"]))


def _resized(reference: str, resolution: int, device: str) -> Any:
    return sartor.tasks.get(f"{reference}{'&' if '?' in reference else '?'}resolution={resolution}", device)


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
