"""Fronts of accuracy and measured latency: NSGA-II beside random search, single limits, and pymoo's own NSGA-II.

Must show (issue Supernet Shifting, 4). The space of NAS-Bench-Macro, graded by one supernet of CIFAR-10 (JPEG), so that
all searches ask the same; latency is measured on this CPU while they search. Equal numbers of networks graded and
measured:

    sartor        `spos` with latency as objective, measured
    random        networks drawn at random
    limits        `spos` four times, with populations a quarter as large, within limits of predicted latency at its
                  20, 40, 60 and 80 % quantiles; the predictor is fitted on the random networks below, which are not
                  counted
    pymoo         pymoo's NSGA-II with integer variables, simulated binary crossover and polynomial mutation

Hypervolume is of (error, latency) up to the worst of both among all that was asked, 1 being all of that area; seeds are
of the searches, and differences are in pairs of one seed. Beside it, Kendall's tau between multiply-accumulates and
measured latency over the random networks, of this space and of ShuffleNetV2's (appendix, Fig. 3; published on another
device: 0.3).

Wants a quiet machine. Reduced: width, resolution, images, networks asked. Floor: what random networks have to reach by
the supernet. ShuffleNetV2's, twenty layers deep, would need many more epochs than the reduced setting has.

    python benchmarks/fronts.py [--full] [--seed S ...]
    python benchmarks/fronts.py [--full] figure     # docs/img/fronts.svg
"""

from __future__ import annotations

import os
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sartor
from common import CACHE, RESULTS, Results, interval, parser
from sartor import workflow
from sartor.choose.pareto import front
from sartor.core import METRICS, Architecture, Budget, F, FunctionScore
from sartor.methods.spos import SPOS
from sartor.predictors.evaluate import quality
from sartor.predictors.ridge import Ridge
from sartor.quality.supernet import Remembered
from sartor.report.style import CYCLE, canvas, quiet, styled
from sartor.runs import Run, read_json
from sartor.spaces.complexity import Complexity
from sartor.training.tasks import for_search

SEEDS, WAYS, LIMITS = (0, 1, 2, 3, 4), ("sartor", "random", "limits", "pymoo"), (0.2, 0.4, 0.6, 0.8)
GRADED = 50
REDUCED: dict[str, Any] = {
    "spaces": ["nas-bench-macro?width=0.5&resolution=16", "shufflenet:cifar?width=0.5&resolution=16"],
    "data": "parquet:{data}/cifar10?images=10000&resolution=16",
    "supernet": {"epochs": 30, "batch_size": 64},
    "random": 600,
    "asked": 160,
    "population": 20,
    "floor": 35.0,
}
FULL: dict[str, Any] = {
    "spaces": ["nas-bench-macro", "shufflenet:cifar"],
    "data": "parquet:{data}/cifar10",
    "supernet": {"epochs": 60, "batch_size": 256, "lr": 0.1},
    "random": 2000,
    "asked": 1000,
    "population": 50,
    "floor": 60.0,
}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("what", nargs="?", default="measure", choices=["measure", "figure"])
    options.add_argument("--seed", type=int, choices=SEEDS, action="append", help="default all")
    given = options.parse_args()
    name = f"fronts{'_full' if given.full else ''}"
    if given.what == "figure":
        out = Path(__file__).parent.parent / "docs" / "img" / "fronts.svg"
        drawn(read_json(RESULTS / f"{name}.json")).savefig(out, facecolor="white")
        return
    bench = Bench(FULL if given.full else REDUCED, name)
    for space in bench.setting["spaces"]:
        bench.results.row({"what": "random networks", "space": space}, lambda space=space: bench.sample(space))
    for seed in given.seed or SEEDS:
        for way in WAYS:
            bench.results.row({"what": "front", "way": way, "seed": seed}, lambda w=way, s=seed: bench.ask(w, s))
    bench.results.summarise(**summary(bench.results.data["rows"], bench.setting["floor"]))


class Bench:
    """One supernet, one store of measurements, and who asks them."""

    def __init__(self, setting: dict[str, Any], name: str) -> None:
        torch.set_num_threads(1)
        self.setting, self.place = setting, CACHE / name
        self.place.mkdir(parents=True, exist_ok=True)
        root, device = os.environ.get("SARTOR_DATA", "../shared/data"), "cuda" if torch.cuda.is_available() else "cpu"
        task = sartor.tasks.get(setting["data"].format(data=root), device)
        target = sartor.targets.get("onnxruntime:cpu?threads=1&batch=1")
        self.results = Results(
            name,
            "hypervolume above random search, single limits and pymoo's NSGA-II at equal evaluations",
            {**setting, "data_name": task.describe(), "target": target.id, "seeds": SEEDS, "limits": LIMITS},
        )
        self.target, self.store = target, str(self.place / "measurements.db")
        self.searched_in = setting["spaces"][0]
        self.space = sartor.spaces.get(self.searched_in)
        self.latency = workflow.Measured(self.space, target, "latency_ms", self.store)
        self.run = Run(self.place / "supernet", {"of": setting}, 0)
        self.run.__enter__()
        method, view = SPOS(**setting["supernet"], valid_batches=4), for_search(task)
        supernet, _ = method.trained(self.space, view, self.run)
        self.accuracy = Remembered(method.graded_by(supernet, self.space, view), self.run.stage("grades"))

    def values(self, archs: list[Architecture]) -> list[list[float]]:
        """Error (%) and latency (ms) of each."""
        return np.column_stack([100 - self.accuracy(archs), self.latency(archs)]).tolist()

    def sample(self, name: str) -> dict[str, Any]:
        space, rng = sartor.spaces.get(name), np.random.default_rng(100)
        archs = list(dict.fromkeys(space.sample(rng, self.setting["random"])))
        latency = workflow.Measured(space, self.target, "latency_ms", self.store)
        out = {"ms": latency(archs).tolist(), "macs": Complexity(space, "macs")(archs).tolist()}
        said = {"said": self.accuracy(archs[:GRADED]).tolist()} if name == self.searched_in else {}
        return {"architectures": [list(arch) for arch in archs], **out, **said}

    def ask(self, way: str, seed: int) -> dict[str, Any]:
        archs: list[Architecture] = {
            "sartor": self.ours, "random": self.random, "limits": self.limits, "pymoo": self.theirs
        }[way](seed)[: self.setting["asked"]]  # fmt: skip
        return {"asked": len(archs), "values": self.values(archs)}

    def random(self, seed: int) -> list[Architecture]:
        drawn = self.space.sample(np.random.default_rng([101, seed]), 2 * self.setting["asked"])
        return list(dict.fromkeys(drawn))

    def searched(self, seed: int, objectives: list[Any], budgets: list[Budget], share: int) -> list[Architecture]:
        """What a search asks about, in order, with a share of the population and networks asked, or some more."""
        seen: dict[Architecture, None] = {}

        def grade(space: Any, arch: Architecture) -> float:
            seen[arch] = None
            return float(self.accuracy([arch])[0])

        population, asked = 2 * self.setting["population"] // share, self.setting["asked"] // share
        sartor.search(
            "spos",
            self.space,
            None,
            budget=budgets,
            objectives=[FunctionScore(self.space, METRICS["accuracy"], grade), *objectives],
            seed=seed,
            population=population,  # parents and children
            keep=population // 2,
            iterations=2 * asked // population,
        )
        return list(seen)

    def ours(self, seed: int) -> list[Architecture]:
        return self.searched(seed, [self.latency], [], 1)

    def limits(self, seed: int) -> list[Architecture]:
        known = self.results.get({"what": "random networks", "space": self.searched_in})
        assert known is not None
        archs, ms = [tuple(arch) for arch in known["architectures"]], np.array(known["ms"])
        fitted = Ridge().fit(self.space, archs, ms, metric=METRICS["latency_ms"])
        limits = [float(limit) for limit in np.quantile(ms, LIMITS)]
        searches = [
            self.searched(10 * seed + i, [], [Budget(fitted, limit)], len(limits)) for i, limit in enumerate(limits)
        ]
        return list(dict.fromkeys(arch for turn in zip_longest(*searches) for arch in turn if arch))

    def theirs(self, seed: int) -> list[Architecture]:
        from pymoo.algorithms.moo.nsga2 import NSGA2
        from pymoo.core.problem import Problem
        from pymoo.operators.crossover.sbx import SBX
        from pymoo.operators.mutation.pm import PM
        from pymoo.operators.repair.rounding import RoundingRepair
        from pymoo.operators.sampling.rnd import IntegerRandomSampling
        from pymoo.optimize import minimize

        bench, seen = self, dict[Architecture, None]()

        class Networks(Problem):  # type: ignore[misc]
            def __init__(self) -> None:
                upper = np.array([len(slot) - 1 for slot in bench.space.slots])
                super().__init__(n_var=len(upper), n_obj=2, xl=0, xu=upper, vtype=int)

            def _evaluate(self, x: F, out: dict[str, Any], *_: Any, **__: Any) -> None:
                archs = [tuple(int(k) for k in row) for row in x]
                seen.update(dict.fromkeys(archs))
                out["F"] = np.array(bench.values(archs))

        repair: dict[str, Any] = {"vtype": float, "repair": RoundingRepair()}
        algorithm = NSGA2(
            pop_size=self.setting["population"],
            sampling=IntegerRandomSampling(),
            crossover=SBX(**repair),
            mutation=PM(**repair),
            eliminate_duplicates=True,
        )
        minimize(Networks(), algorithm, ("n_eval", 2 * self.setting["asked"]), seed=seed)  # some are asked twice
        return list(seen)


def summary(rows: list[dict[str, Any]], floor: float) -> dict[str, Any]:
    """Hypervolumes, in pairs against each, and how far multiply-accumulates tell latency."""
    from pymoo.indicators.hv import HV

    samples = [row for row in rows if row["cell"]["what"] == "random networks"]
    orders = [
        {
            "space": row["cell"]["space"],
            "networks": len(row["ms"]),
            "tau of MACs and latency": quality(np.array(row["macs"]), np.array(row["ms"]))["kendall"],
        }
        for row in samples
    ]
    said = float(np.mean(samples[0]["said"]))
    known = {"orders": orders, "accuracy said": said, "floor reached": said >= floor}
    fronts = {
        (c["way"], c["seed"]): values[np.isfinite(values).all(1)]
        for row in rows
        if (c := row["cell"])["what"] == "front" and len(values := np.array(row["values"], float))
    }
    if not fronts:
        return known
    everything = np.concatenate(list(fronts.values()))
    worst, best = everything.max(0), everything.min(0)
    volume = {key: float(HV(ref_point=np.ones(2))((values - best) / (worst - best))) for key, values in fronts.items()}
    lines = []
    for way in WAYS:
        mine = {seed: value for (of, seed), value in volume.items() if of == way}
        apart = [volume["sartor", seed] - value for seed, value in mine.items() if ("sartor", seed) in volume]
        lines.append(
            {
                "search": way,
                "seeds": len(mine),
                "asked": float(np.mean([len(fronts[way, seed]) for seed in mine])),
                "hypervolume": interval(list(mine.values())),
                "sartor less this": interval(apart) if way != "sartor" and len(apart) > 1 else None,
            }
        )
    return {**known, "rows": lines}


@styled
def drawn(data: dict[str, Any]) -> Any:
    """Left: multiply-accumulates and latency. Right: the fronts of the first seed."""
    figure = canvas(3.4)
    left, right = figure.subplots(1, 2)
    rows = data["rows"]
    sample = next(row for row in rows if row["cell"]["what"] == "random networks")
    quiet(left, grid="both")
    left.scatter(np.array(sample["macs"]) / 1e6, sample["ms"], s=6, color=CYCLE[0], linewidths=0)
    tau = data["summary"]["orders"][0]["tau of MACs and latency"]
    left.set(xlabel="multiply-accumulates (M)", ylabel="measured latency (ms)", title=f"Kendall's tau {tau:.2f}")
    quiet(right, grid="both")
    for color, way in zip(CYCLE, WAYS):
        row = next((r for r in rows if r["cell"].get("way") == way and r["cell"]["seed"] == SEEDS[0]), None)
        if row is not None:
            values = np.array(row["values"])
            best = values[front(values)]
            best = best[np.argsort(best[:, 1])]
            right.step(best[:, 1], 100 - best[:, 0], where="post", color=color, label=way)
    right.set(xlabel="measured latency (ms)", ylabel="accuracy by the supernet (%)")
    right.legend(frameon=False, fontsize=7)
    return figure


if __name__ == "__main__":
    main()
