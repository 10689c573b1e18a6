"""Dynamic networks: what an exchange of blocks costs, what the controller does when the machine slows down, what
shared batch norms cost.

Must show (issue MathNAS, 7). MobileNetV3 at 224 pixels and full width, five blocks a unit spread over multiply-
accumulates, 3,125 networks, weights random (they do not matter for time), ONNX Runtime, one thread.

switching: milliseconds to become another network and to have answered once, and memory: blocks exchanged, blocks all
resident, the whole network loaded anew, and a network of four switchable widths (.25, .5, .75, 1 of the largest), whose
widths are four sessions in this runtime, loaded anew or all resident.
simulated: a device whose speed is that of the tables times a factor that jumps, with 3 % noise; windows above the
limit, and runs until it is kept (a window that has begun before the jump is a mixture).
contention: the same on this machine. One to three processes compute on the core that the network runs on, then stop.
A static network, the best within the limit when quiet, runs beside it under the same conditions, in turn.
accuracy: blocks of the CIFAR-10 (lossy JPEG copy) supernet that `mathnas_networks.py mobilenetv3` trained, on `valid`:
networks with batch-norm statistics of their own, with shared ones, and after training with shared ones held fixed.

    python benchmarks/dynamic.py switching|simulated|contention|accuracy
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sartor
from common import CACHE, Results, interval, parser
from sartor.core import METRICS, TermScore
from sartor.core.restricted import Restricted
from sartor.dynamic import build
from sartor.dynamic.blocks import Bank, pareto
from sartor.dynamic.controller import DynamicNetwork
from sartor.export import onnx_model
from sartor.quality.blocks import additive_macs
from sartor.targets import energy

SPACE, WIDTHS, BLOCKS = "mobilenetv3:ofa", (0.25, 0.5, 0.75, 1.0), 5
SWITCHES, SEEDS, SIMULATED = 30, 3, 50
FACTORS = (1.0, 1.5, 2.5, 1.2, 1.0)
BUSY, RUNS = (1, 2, 3), 180
WINDOW, WARMUP = 20, 10
GOAL = "limit broken for at most one window, then kept; exchange of blocks against full reload and switchable widths"


def main() -> None:
    options = parser(__doc__)
    options.add_argument("experiment", choices=["switching", "simulated", "contention", "accuracy"])
    options.add_argument("--seed", type=int, help="accuracy: one seed")
    given = options.parse_args()
    torch.set_num_threads(1)
    if given.experiment == "accuracy":
        accuracy(range(SEEDS) if given.seed is None else [given.seed])
        return
    setting = {"space": SPACE, "blocks": BLOCKS, "threads": 1, "window": WINDOW, "warmup": WARMUP}
    where = CACHE / "dynamic"
    prepare(where)
    work = {"switching": switching, "simulated": simulated, "contention": contention}[given.experiment]
    results = Results(f"dynamic_{given.experiment}", GOAL, setting)
    results.summarise(**work(results, where))


def kept_space() -> tuple[Any, Restricted]:
    """Five blocks a unit, spread over their multiply-accumulates; of those the largest kernels and expansions."""
    space = sartor.spaces.get(SPACE)
    macs = additive_macs(space)
    keep = {i: pareto(-np.asarray(u), np.asarray(u), BLOCKS, int(np.argmax(u))) for i, u in enumerate(macs.unary)}
    return space, Restricted(space, keep)


def prepare(where: Path) -> None:
    """The directory of blocks, once."""
    if (where / "ready").exists():
        return
    torch.manual_seed(0)
    space, kept = kept_space()
    bank = Bank(kept, space.supernet())
    bank.calibrate([(torch.randn(2, 3, space.resolution, space.resolution),)], rounds=1)
    chain = build.write_blocks(bank, where)
    worth = additive_macs(kept)
    build.write_dynamic(where, bank, chain, worth, build.unmeasured(kept), METRICS["accuracy"], None)
    timing = build.measure_latency(where, bank, threads=1, seed=0)
    build.write_dynamic(where, bank, chain, worth, timing.terms, METRICS["accuracy"], None)
    x = space.inputs(1)
    ends = {"largest": tuple(len(s) - 1 for s in kept.slots), "smallest": (0,) * len(kept.slots)}
    for name, arch in {**ends, "middle": (2,) * len(kept.slots)}.items():
        (where / f"{name}.onnx").write_bytes(onnx_model(space.deploy(bank.extract(arch)), x).SerializeToString())
    for width in WIDTHS:
        narrow = space.scaled(width)
        network = narrow.deploy(narrow.network(kept.lift(ends["largest"])))
        (where / f"width-{width}.onnx").write_bytes(onnx_model(network, x).SerializeToString())
    (where / "ready").write_text(json.dumps({"latency error": timing.error, "networks": timing.networks}))


# ---------------------------------------------------------------------- switching

# one mode a process, so that memory is its own: prints milliseconds of switches and memory in MB
CHILD = """
import json, os, sys, time
import numpy as np
import onnxruntime
sys.path.insert(0, sys.argv[1])
from controller import DynamicNetwork, _session_options
where, mode, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
def memory(key):
    return next(int(line.split()[1]) / 1e3 for line in open("/proc/self/status") if line.startswith(key))
def reset():
    open("/proc/self/clear_refs", "w").write("5")
x = np.random.default_rng(0).standard_normal((1, 3, 224, 224), dtype=np.float32)
rng = np.random.default_rng(1)
before = memory("VmRSS")
def session(name):
    return onnxruntime.InferenceSession(f"{where}/{name}", _session_options(1), providers=["CPUExecutionProvider"])
if mode in ("blocks", "one block", "blocks resident"):
    network = DynamicNetwork(where, 1e9, resident=mode == "blocks resident")
    network.switch((4,) * 5)
    def become(i):
        now = network.choice
        if mode == "one block":
            unit = int(rng.integers(5))
            new = tuple((k + 1 + int(rng.integers(4))) % 5 if j == unit else k for j, k in enumerate(now))
        else:
            new = tuple(int(k) for k in rng.integers(5, size=5))
        network.switch(new)
        return lambda: network.run(x)
else:
    names = ["largest.onnx", "middle.onnx", "smallest.onnx"] if mode == "whole" else [
        f"width-{w}.onnx" for w in (0.25, 0.5, 0.75, 1.0)]
    held = {n: session(n) for n in names} if mode == "widths resident" else {}
    running = [held.get(names[-1]) or session(names[-1])]
    def become(i):
        name = names[i % len(names)]
        running[0] = held.get(name) or session(name)  # the new one is loaded while the old one is there
        return lambda: running[0].run(["output"], {"input0": x})
    if mode != "widths resident":
        running[0].run(["output"], {"input0": x})
if mode in ("blocks", "one block", "blocks resident"):
    network.run(x)
steady = memory("VmRSS") - before
reset()
switch, answered, runs = [], [], []
for i in range(count):
    began = time.perf_counter()
    run = become(i)
    switch.append((time.perf_counter() - began) * 1e3)
    run()
    answered.append((time.perf_counter() - began) * 1e3)
    began = time.perf_counter()
    run()
    runs.append((time.perf_counter() - began) * 1e3)
beyond = [a - r for a, r in zip(answered, runs)]  # what the first answer takes beyond a plain one
print(json.dumps({"switch_ms": switch, "beyond_ms": beyond, "run_ms": runs, "steady_mb": steady,
                  "peak_mb": memory("VmHWM") - before}))
"""
MODES = ("one block", "blocks", "blocks resident", "whole", "widths", "widths resident")


def switching(results: Results, where: Path) -> dict[str, Any]:
    for mode in MODES:

        def measured(mode: str = mode) -> dict[str, Any]:
            words = [sys.executable, "-c", CHILD, str(where), mode, str(SWITCHES)]
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            found: dict[str, Any] = json.loads(done.stdout)
            return found

        results.row({"mode": mode}, measured)
    overhead = results.row({"overhead": "chain against one session"}, lambda: chain_overhead(where))
    rows = []
    for mode in MODES:
        row = results.get({"mode": mode})
        assert row is not None
        rows.append(
            {
                "mode": mode,
                "switch (ms, median)": float(np.median(row["switch_ms"])),
                "switch (ms, p90)": float(np.percentile(row["switch_ms"], 90)),
                "first answer beyond a plain one (ms, median)": float(np.median(row["beyond_ms"])),
                "memory, steady (MB)": row["steady_mb"],
                "memory, peak (MB)": row["peak_mb"],
            }
        )
    counters = [c.name for c in energy.cpu_counters()]
    return {"rows": rows, "overhead": overhead["rows"], "energy": counters or "no counter on this machine"}


def chain_overhead(where: Path) -> dict[str, Any]:
    """The same network as one session and block by block, visits in turn: (ms, ms, ratio)."""
    import onnxruntime

    from sartor.dynamic.controller import _session_options
    from sartor.targets.timing import interleave, visit

    network, x = DynamicNetwork(where, 1e9, resident=True), np.random.default_rng(0).standard_normal((1, 3, 224, 224))
    x = x.astype(np.float32)
    rows = []
    for name, level in (("largest", 4), ("middle", 2), ("smallest", 0)):
        network.switch((level,) * 5)
        file = str(where / f"{name}.onnx")
        session = onnxruntime.InferenceSession(file, _session_options(1), providers=["CPUExecutionProvider"])
        runs = [lambda s=session: s.run(["output"], {"input0": x}), lambda: network.run(x)]
        timed = interleave(runs, None, lambda r: visit(r, 100.0, 3), 12, np.random.default_rng(0))
        one, chain = (float(np.median(t.samples)) for t in timed)
        rows.append({"network": name, "one session (ms)": one, "block by block (ms)": chain, "ratio": chain / one})
    return {"rows": rows}


# ---------------------------------------------------------------------- slow-downs


def simulated(results: Results, where: Path) -> dict[str, Any]:
    for seed in range(SIMULATED):
        results.row({"seed": seed}, lambda s=seed: simulate(where, s))
    rows = results.data["rows"]
    return {
        "rows": [
            {
                "factor": factor,
                "windows above the limit": {
                    str(n): sum(row["slow windows"][i] == n for row in rows)
                    for n in sorted({row["slow windows"][i] for row in rows})
                },
                "runs until kept, most": max(row["runs until kept"][i] for row in rows),
                "kept in the end": sum(row["kept"][i] for row in rows),
                "of": len(rows),
                "blocks exchanged, mean": float(np.mean([row["swapped"][i] for row in rows])),
            }
            for i, factor in enumerate(FACTORS)
        ],
        "window": WINDOW,
    }


def simulate(where: Path, seed: int) -> dict[str, Any]:
    """Windows above the limit after each jump of the speed; latencies with 3 % noise."""
    rng = np.random.default_rng(seed)
    network = limited(where)
    out: dict[str, Any] = {"slow windows": [], "runs until kept": [], "kept": [], "swapped": [], "search": []}
    for factor in FACTORS:
        seen, kept = len(network.events), 0
        for i in range(10 * (WINDOW + WARMUP) + int(rng.integers(WINDOW))):  # a jump comes anywhere in a window
            ms = factor * network.tables.latency(network.choice) * (1 + 0.03 * float(rng.standard_normal()))
            if factor * network.tables.latency(network.choice) > network.limit_ms:
                kept = i + 1
            network.observe(ms)
        events = list(network.events)[seen:]
        out["slow windows"].append(sum(event.reason == "slow" for event in events))
        out["runs until kept"].append(kept)
        out["kept"].append(factor * network.tables.latency(network.choice) <= network.limit_ms)
        out["swapped"].append(sum(event.swapped for event in events))
        out["search"].append([event.search for event in events])
    return {"limit_ms": network.limit_ms, **out}


def limited(where: Path, **options: Any) -> DynamicNetwork:
    """With a limit of .9 of the largest network's latency."""
    network = DynamicNetwork(where, 1e9, window=WINDOW, warmup=WARMUP, **options)
    largest = tuple(len(piece["files"]) - 1 for piece in network.chain if piece["slot"] is not None)
    limit = 0.9 * network.tables.latency(largest)
    return DynamicNetwork(where, limit, window=WINDOW, warmup=WARMUP, **options)


def contention(results: Results, where: Path) -> dict[str, Any]:
    for busy in BUSY:
        for seed in range(SEEDS):
            for kind in ("dynamic", "static"):
                results.row(
                    {"busy processes": busy, "seed": seed, "network": kind},
                    lambda b=busy, k=kind: contend(where, b, k == "dynamic"),
                )
    rows = []
    for busy in BUSY:
        for kind in ("dynamic", "static"):
            mine = [
                r for r in results.data["rows"] if (r["cell"]["busy processes"], r["cell"]["network"]) == (busy, kind)
            ]
            if mine:
                after = [r["broken after"] for r in mine]
                searches = [{e["search"] for e in r["events"]} for r in mine]
                rows.append(
                    {
                        "busy processes": busy,
                        "network": kind,
                        "windows": float(np.mean([r["windows"] for r in mine])),
                        "above the limit, run by run": [r["broken"] for r in mine],
                        "of these after the first switch": None if None in after else after,
                        "over the limit, median of all windows (%)": float(
                            np.median([100 * (m / r["limit_ms"] - 1) for r in mine for m in r["means_ms"]])
                        ),
                        "runs in which even the fastest was too slow": sum("fastest" in s for s in searches),
                        "MACs when quiet again / before": float(np.mean([r["recovered"] for r in mine])),
                    }
                )
    return {"rows": rows}


def contend(where: Path, busy: int, adapts: bool) -> dict[str, Any]:
    """Quiet, then other processes on the same core, then quiet: what windows of runs took."""
    core = {min(os.sched_getaffinity(0))}
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, core)
    children: list[subprocess.Popen[bytes]] = []
    try:
        network = limited(where)
        x = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
        # the machine may be faster or slower today than when the tables were made
        quick = min(_timed(network, x) for _ in range(30))
        network.limit_ms = 1.1 * quick
        start, phases = network.choice, []
        for others in (0, busy, 0):
            for _ in range(others):
                spin = f"import os; os.sched_setaffinity(0, {core!r})\nwhile True: pass"
                children.append(subprocess.Popen([sys.executable, "-c", spin]))
            if others:
                time.sleep(1.0)
            phases.append([_one(network, x, adapts) for _ in range(RUNS)])
            while children:
                child = children.pop()
                child.kill()
                child.wait()
        times, choices = zip(*phases[1])
        windows = _windows(times, choices)
        first = next((i for i, c in enumerate(choices) if c != choices[0]), None)
        after = [] if first is None else _windows(times[first:], choices[first:])
        slower = float(np.mean(times[: first or None])) / float(np.mean([t for t, _ in phases[0]]))
        return {
            "limit_ms": network.limit_ms,
            "quiet_ms": quick,
            "slower": slower,
            "windows": len(windows),
            "broken": sum(w > network.limit_ms for w in windows),
            "broken after": sum(w > network.limit_ms for w in after) if adapts else None,
            "means_ms": [round(w, 2) for w in windows],
            "recovered": network.tables.quality(phases[2][-1][1]) / network.tables.quality(start),
            "events": [
                {"reason": e.reason, "mean_ms": e.mean_ms, "swapped": e.swapped, "search": e.search,
                 "search_ms": e.search_ms, "switch_ms": e.switch_ms, "after": list(e.after)}
                for e in network.events
            ],
        }  # fmt: skip
    finally:
        for child in children:
            child.kill()
        os.sched_setaffinity(0, everywhere)


def _timed(network: DynamicNetwork, x: Any) -> float:
    began = time.perf_counter()
    network.run(x)
    return (time.perf_counter() - began) * 1e3


def _one(network: DynamicNetwork, x: Any, adapts: bool) -> tuple[float, tuple[int, ...]]:
    """Latency of a run, and the network that ran."""
    choice, ms = network.choice, _timed(network, x)
    if adapts:
        network.observe(ms)
    return ms, choice


def _windows(times: Any, choices: Any) -> list[float]:
    """Means of windows of one network, as the controller counts them: not the first runs after a change."""
    out, held, skip = [], [], 0
    for i, (ms, choice) in enumerate(zip(times, choices)):
        if i and choice != choices[i - 1]:
            held, skip = [], WARMUP
        if skip:
            skip -= 1
            continue
        held.append(ms)
        if len(held) == WINDOW:
            out.append(float(np.mean(held)))
            held = []
    return out


# ---------------------------------------------------------------------- accuracy


def accuracy(seeds: Sequence[int]) -> None:
    from mathnas_networks import REDUCED
    from sartor.dynamic.blocks import keep_blocks
    from sartor.methods import METHODS
    from sartor.quality.supernet import Remembered, SupernetScore, train_supernet
    from sartor.runs import Run
    from sartor.training.tasks import for_search

    setting, drawn, epochs = REDUCED["mobilenetv3"], 30, (0, 2, 6)
    space: Any = sartor.spaces.get(setting["space"])
    root = os.environ.get("SARTOR_DATA", "../shared/data")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    task = for_search(sartor.tasks.get(setting["data"].format(data=root), device))
    job = {**setting, "data_name": task.describe(), "blocks": BLOCKS, "networks": drawn, "lr": 0.02, "epochs": epochs}
    results = Results("dynamic_accuracy", "accuracy lost through shared batch-norm statistics is reported", job)
    name = "mathnas_mobilenetv3"
    with Run(CACHE / name, {"benchmark": name, **setting}, 0) as run:
        engine: Any = METHODS["mathnas"].of(setting["search"])
        stage = run.stage("search")
        whole = engine.oracle(space, [], stage, task)
        learned = engine.learn(space, Remembered(whole, stage), [], stage)
    macs = TermScore(space, METRICS["macs"], additive_macs(space))
    best = max(learned.told, key=lambda arch: learned.told[arch])
    kept = keep_blocks(space, learned.score, macs, best)

    def lost(count: int, seed: int) -> dict[str, Any]:
        archs = kept.sample(np.random.default_rng([seed, 3]), drawn)
        own = whole([kept.lift(arch) for arch in archs])
        bank = Bank(kept, whole.supernet)
        bank.calibrate([x for x, _ in task.batches("train", size=256, seed=seed, epoch=0, limit=4)], seed=seed)
        if count:
            with tempfile.TemporaryDirectory() as scratch, Run(scratch, {"benchmark": "dynamic"}, seed) as run:
                train_supernet(kept, task, run, epochs=count, batch_size=64, optimiser="sgd", lr=0.02, supernet=bank)
        shared = SupernetScore(kept, bank, task, calibration=0, limit=setting["search"]["valid_batches"])(archs)
        return {"own": own.tolist(), "shared": shared.tolist()}

    for seed in seeds:
        for count in epochs:
            results.row({"epochs": count, "seed": seed}, lambda c=count, s=seed: lost(c, s))
    rows = []
    for count in (count for count in epochs if any(row["cell"]["epochs"] == count for row in results.data["rows"])):
        mine = [row for row in results.data["rows"] if row["cell"]["epochs"] == count]
        rows.append(
            {
                "trained with shared statistics (epochs)": count,
                "accuracy, own statistics (%)": float(np.mean([row["own"] for row in mine])),
                "accuracy, shared (%)": interval([float(np.mean(row["shared"])) for row in mine]),
                "lost (points)": interval([float(np.mean(np.subtract(row["own"], row["shared"]))) for row in mine]),
                "lost at most (points)": max(float(np.max(np.subtract(row["own"], row["shared"]))) for row in mine),
                "seeds": len(mine),
            }
        )
    results.summarise(rows=rows)


if __name__ == "__main__":
    main()
