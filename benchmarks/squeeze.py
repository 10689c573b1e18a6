"""Squeeze-excite and activations on LightNets: accuracy and latency.

Must show (issue Beyond the classifier, 5; thesis, Table 4.5). The networks that LightNAS found with three limits
(accuracy.json), three seeds, on CIFAR-10 (JPEG):

    plain        as found: ReLU6
    se           squeeze-excite in the last nine layers, as published
    hardswish    Hardswish instead of ReLU6
    se, hardswish

One recipe; all of a seed measured in one sitting, which wants a quiet machine. Differences are in pairs of one limit
and seed. What squeeze-excite costs in time is said beside what it gains: a ranking at equal latency needs a search.

Reduced: 20 px, half the width, 10,000 images. Full: 32 px, width 1, all images, on a GPU. Floor: the plain ones.

    python benchmarks/squeeze.py [--full] [--stage NAME] [--seed S ...] [--form NAME ...]
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import bench
import sartor
from common import RESULTS, interval, parser
from sartor.core import Architecture, SearchSpace
from sartor.runs import read_json

SEEDS, STAGES = (0, 1, 2), ("sitting", "train")
FORMS = {"plain": "", "se": "&se=true", "hardswish": "&act=hardswish", "se, hardswish": "&se=true&act=hardswish"}
REDUCED: dict[str, Any] = {
    "space": "mobilenet:cifar?width=0.5&resolution=20",
    "data": "parquet:{data}/cifar10?images=10000&resolution=20",
    "recipe": {"epochs": 15, "batch_size": 64, "lr": 0.05, "evaluate_every": 0},
    "floor": 55.0,
}
FULL: dict[str, Any] = {
    "space": "mobilenet:cifar?width=1.0",
    "data": "parquet:{data}/cifar10",
    "recipe": {"epochs": 60, "batch_size": 128, "lr": 0.1, "evaluate_every": 0},
    "floor": 90.0,
}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--stage", choices=STAGES, action="append", help="default all")
    options.add_argument("--seed", type=int, choices=SEEDS, action="append", help="default all")
    options.add_argument("--form", choices=FORMS, action="append", help="of the trainings, default all")
    given = options.parse_args()
    own = Bench(FULL if given.full else REDUCED, f"squeeze{'_full' if given.full else ''}")
    for stage in given.stage or STAGES:
        if stage == "sitting":
            own.results.row({"what": stage}, own.sitting)
            continue
        for form in given.form or FORMS:
            for seed in given.seed or SEEDS:
                for limit in own.limits:
                    cell = {"what": stage, "form": form, "limit_ms": limit, "seed": seed}
                    own.results.row(cell, partial(own.trained, form, limit, seed))
    own.results.summarise(**summary(own.results.data["rows"], own.setting["floor"]))


class Bench(bench.Bench):
    """The networks in each form."""

    def __init__(self, setting: dict[str, Any], name: str) -> None:
        super().__init__(setting, name, "what squeeze-excite gains and costs", SEEDS)
        rows = [r for r in read_json(RESULTS / "accuracy.json")["rows"] if r["cell"]["what"] == "search"]
        self.found = {(r["cell"]["limit_ms"], r["cell"]["seed"]): tuple(r["lightnas"]) for r in rows}
        self.limits = sorted({limit for limit, _ in self.found})

    def member(self, form: str, limit: float, seed: int) -> tuple[SearchSpace, Architecture]:
        return sartor.spaces.get(self.setting["space"] + FORMS[form]), self.found[limit, seed]

    def sitting(self) -> dict[str, Any]:
        keys = [(form, limit, seed) for form in FORMS for limit in self.limits for seed in SEEDS]
        ms = self.times([self.member(*key) for key in keys], "squeeze")
        return {"latency_ms": [[*key, value] for key, value in zip(keys, ms)]}

    def trained(self, form: str, limit: float, seed: int) -> dict[str, Any]:
        found = self.train(*self.member(form, limit, seed), seed)
        return {"accuracy": found["value"], "params": found["params"]}


def summary(rows: list[dict[str, Any]], floor: float) -> dict[str, Any]:
    """A line per form and limit, and one of each form over all, in pairs against the plain ones."""
    told = next((row["latency_ms"] for row in rows if row["cell"]["what"] == "sitting"), [])
    ms = {(form, limit, seed): value for form, limit, seed, value in told}
    accuracy = {
        (c["form"], c["limit_ms"], c["seed"]): row["accuracy"] for row in rows if (c := row["cell"])["what"] == "train"
    }
    lines = []
    for form in FORMS:
        for limit in (*sorted({key[1] for key in accuracy}), None):
            mine = [key for key in accuracy if key[0] == form and limit in (key[1], None)]
            if not mine:
                continue
            plain = {key: ("plain", *key[1:]) for key in mine}
            apart = [accuracy[key] - accuracy[plain[key]] for key in mine if plain[key] in accuracy]
            slower = [100 * (ms[key] / ms[plain[key]] - 1) for key in mine if ms]
            line: dict[str, Any] = {
                "form": form,
                "limit (ms)": limit or "all",
                "pairs": len(mine),
                "accuracy": interval([accuracy[key] for key in mine]),
                "ms": float(np.mean([ms[key] for key in mine])) if ms else None,
            }
            if form != "plain" and len(apart) > 1:
                line["less plain"] = gain = interval(apart)
                line["slower (%)"] = interval(slower) if slower else None
                line["verdict"] = "better" if gain["low"] > 0 else "worse" if gain["high"] < 0 else "undecided"
            lines.append(line)
    base = [value for (form, _, _), value in accuracy.items() if form == "plain"]
    return {"rows": lines, "floor reached": float(np.mean(base)) >= floor if base else None}


if __name__ == "__main__":
    main()
