"""Time to a proven optimum: one candidate per slot, several budgets, small and large, easy and hard.

Must show (issue MathNAS, 2): 5 slots x 7,371 candidates with latency and energy budgets in at most .2 s; at least ten
times as fast as plain HiGHS where accuracy is almost linear in latency (correlation .9, .99, .999). Beside it
`scipy.optimize.milp` on the same program, and CP-SAT on values rounded to 1e-6 of their range, in a process of its own
(HiGHS and OR-Tools clash in one). Published, not reproduced: .8 to 1.5 s for 5 units of MobileNetV3.

Gap: 1e-9 for all; a solver that has not proven its optimum after 20 s counts as 20. Each instance is solved once by
each, one after the other on one thread; 5 instances of each kind. The optima must agree.

    python benchmarks/solver.py [--cp PYTHON]     # an interpreter that has ortools; default: this one
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from common import Results, interval, parser
from sartor.choose.exact import maximise
from sartor.choose.program import quiet_stdout
from sartor.core import F, SearchSpace, Slot, Terms

KINDS = [
    {"slots": 5, "candidates": 7371, "limits": 2, "correlation": None},
    {"slots": 20, "candidates": 9, "limits": 2, "correlation": None},
    {"slots": 40, "candidates": 50, "limits": 2, "correlation": None},
    {"slots": 100, "candidates": 50, "limits": 2, "correlation": None},
    {"slots": 40, "candidates": 50, "limits": 1, "correlation": 0.9},
    {"slots": 40, "candidates": 50, "limits": 1, "correlation": 0.99},
    {"slots": 40, "candidates": 50, "limits": 1, "correlation": 0.999},
    {"slots": 100, "candidates": 50, "limits": 1, "correlation": 0.9},
    {"slots": 100, "candidates": 50, "limits": 1, "correlation": 0.99},
    {"slots": 100, "candidates": 50, "limits": 1, "correlation": 0.999},
    {"slots": 40, "candidates": 50, "limits": 2, "correlation": 0.99},
]
INSTANCES, SECONDS, GAP, GRAIN = 5, 20.0, 1e-9, 10**6
CP = """
import json, sys, time
import numpy as np
from ortools.sat.python import cp_model
data = json.load(sys.stdin)
model = cp_model.CpModel()
x = [[model.NewBoolVar("") for _ in row] for row in data["reward"]]
for row in x:
    model.AddExactlyOne(row)
def total(table):
    return sum(int(c) * v for cs, vs in zip(table, x) for c, v in zip(cs, vs))
for table, limit in zip(data["costs"], data["limits"]):
    model.Add(total(table) <= limit)
model.Maximize(total(data["reward"]))
solver = cp_model.CpSolver()
solver.parameters.num_workers = 1
solver.parameters.max_time_in_seconds = data["seconds"]
solver.parameters.relative_gap_limit = 0.0
began = time.perf_counter()
status = solver.Solve(model)
print(json.dumps({"seconds": time.perf_counter() - began, "proven": status == cp_model.OPTIMAL,
                  "chosen": [[solver.Value(v) for v in row].index(1) for row in x]}))
"""


class Plain(SearchSpace):
    """Slots and nothing else."""

    def __init__(self, slots: int, candidates: int) -> None:
        names = tuple(map(str, range(candidates)))
        self.slots = tuple(Slot(f"s{i}", names) for i in range(slots))

    def spec(self) -> dict[str, Any]:
        return {"space": "plain"}

    def inputs(self, batch: int, arch: Any = None) -> Any:
        raise NotImplementedError

    def network(self, arch: Any) -> Any:
        raise NotImplementedError


def instance(kind: dict[str, Any], seed: int) -> tuple[F, list[F], list[float]]:
    """Rewards (slots, candidates), costs of the same shape, and limits a third up the range of random networks.

    Without a correlation a block's accuracy saturates in its cost, as real ones do, with noise; with one, rewards are
    normal and have that correlation with the first cost.
    """
    rng = np.random.default_rng([seed, kind["slots"], kind["candidates"]])
    shape = (kind["slots"], kind["candidates"])
    costs = [rng.gamma(4.0, 1.0, shape) for _ in range(kind["limits"])]
    if kind["correlation"] is None:
        reward = np.log1p(costs[0]) + 0.3 * rng.normal(size=shape)
        costs[1:] = [0.7 * costs[0] + 0.3 * c for c in costs[1:]]
    else:
        rho, own = kind["correlation"], (costs[0] - costs[0].mean()) / costs[0].std()
        reward = rho * own + np.sqrt(1 - rho**2) * rng.normal(size=shape)
    drawn = rng.integers(kind["candidates"], size=(2000, kind["slots"]))
    rows = np.arange(kind["slots"])
    limits = [float(np.quantile(c[rows, drawn].sum(axis=1), 1 / 3)) for c in costs]
    return reward, costs, limits


def ours(reward: F, costs: list[F], limits: list[float]) -> dict[str, Any]:
    space = Plain(*reward.shape)
    rows = [(Terms(0.0, tuple(c)), -np.inf, limit) for c, limit in zip(costs, limits)]
    began = time.perf_counter()
    found = maximise(space, list(reward), rows, seconds=SECONDS)
    return {"seconds": time.perf_counter() - began, "proven": found.status == "optimal", "chosen": found.architecture}


def highs(reward: F, costs: list[F], limits: list[float]) -> dict[str, Any]:
    slots, candidates = reward.shape
    one = csr_array((np.ones(reward.size), (np.repeat(np.arange(slots), candidates), np.arange(reward.size))))
    rules = [LinearConstraint(one, 1.0, 1.0)]
    rules += [LinearConstraint(c.reshape(1, -1), -np.inf, limit) for c, limit in zip(costs, limits)]
    options = {"mip_rel_gap": GAP, "time_limit": SECONDS}
    began = time.perf_counter()
    with quiet_stdout():
        found = milp(-reward.ravel(), constraints=rules, integrality=1, bounds=Bounds(0, 1), options=options)
    seconds = time.perf_counter() - began
    chosen = None if found.x is None else found.x.reshape(reward.shape).argmax(axis=1).tolist()
    return {"seconds": seconds, "proven": found.status == 0, "chosen": chosen}


def cp_sat(python: str, reward: F, costs: list[F], limits: list[float]) -> dict[str, Any]:
    grains = [np.ptp(c) / GRAIN for c in costs]
    data = {
        "reward": np.round(reward / (np.ptp(reward) / GRAIN)).astype(int).tolist(),
        "costs": [np.ceil(c / g).astype(int).tolist() for c, g in zip(costs, grains)],
        "limits": [int(limit / g) for limit, g in zip(limits, grains)],
        "seconds": SECONDS,
    }
    done = subprocess.run([python, "-c", CP], input=json.dumps(data), capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--cp", default=sys.executable, help="an interpreter that has ortools")
    given = options.parse_args()
    results = Results(
        "solver",
        "5 x 7,371 with two budgets proven in <= .2 s; >= 10 x as fast as plain HiGHS on correlated instances",
        {"kinds": KINDS, "instances": INSTANCES, "seconds": SECONDS, "gap": GAP},
    )
    for seed in range(INSTANCES):
        for kind in KINDS:

            def solved(kind: dict[str, Any] = kind, seed: int = seed) -> dict[str, Any]:
                reward, costs, limits = instance(kind, seed)
                rows = np.arange(len(reward))
                out: dict[str, Any] = {}
                for name, solve in (("sartor", ours), ("highs", highs), ("cp-sat", lambda *a: cp_sat(given.cp, *a))):
                    found = solve(reward, costs, limits)
                    chosen = found.pop("chosen")
                    found["value"] = None if chosen is None else float(reward[rows, list(chosen)].sum())
                    out[name] = found
                return out

            results.row({**kind, "instance": seed}, solved)
    summary = []
    for kind in KINDS:
        mine = [row for row in results.data["rows"] if kind.items() <= row["cell"].items()]
        if not mine:
            continue
        best = [
            max(row[n]["value"] for n in ("sartor", "highs", "cp-sat") if row[n]["value"] is not None) for row in mine
        ]
        summary.append(
            {
                **kind,
                **{
                    f"{n}, seconds": interval([row[n]["seconds"] for row in mine])
                    for n in ("sartor", "highs", "cp-sat")
                },
                **{f"{n}, proven": sum(row[n]["proven"] for row in mine) for n in ("sartor", "highs", "cp-sat")},
                "HiGHS / sartor, median": float(
                    np.median([r["highs"]["seconds"] / r["sartor"]["seconds"] for r in mine])
                ),
                "sartor below the best by (relative)": max(
                    (b - row["sartor"]["value"]) / max(abs(b), 1e-9) for b, row in zip(best, mine)
                ),
            }
        )
    results.summarise(rows=summary)


if __name__ == "__main__":
    main()
