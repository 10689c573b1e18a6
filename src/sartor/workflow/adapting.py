"""From a search with a supernet to a dynamic network: blocks chosen, graded, written, timed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sartor.core import Architecture, F, Json, Score, Task, Unreachable, UserError, parse_limit
from sartor.core.progress import progress
from sartor.runs import Run, read_json
from sartor.workflow.networks import load_architecture
from sartor.workflow.searching import budgets_of

CONTEXTS = 4  # random networks in which each block is graded
CHECKED = 30  # random networks that predictions are compared with
CALIBRATION = 4  # batches
BATCH, LR = 64, 0.02  # of blocks trained together
STEPS = 12  # limits on the front
ROOM = 1.05  # times the latency of the network found, where no limit is known


class Searched:
    """A finished search of mathnas with a supernet, opened again: nothing is trained or asked twice."""

    def __init__(self, source: Path, task: Task) -> None:
        from sartor.methods.mathnas import MathNAS
        from sartor.quality.supernet import Remembered, SupernetScore
        from sartor.spaces.complexity import Complexity

        self.space, self.architecture = load_architecture(source)
        result, kept = read_json(source / "result.json"), read_json(source / "run.json")
        if result.get("method") != "mathnas" or not (source / "search" / "supernet").is_dir():
            raise UserError(
                f"{source} is no search of mathnas with a supernet, which blocks are taken from; run "
                "`sartor search mathnas` on a space that has one."
            )
        engine: Any = MathNAS.of(result["settings"])
        with Run(source, kept["job"], kept["seed"]) as run:
            stage = run.stage("search")
            budgets = budgets_of(kept["job"]["budgets"], self._scores(source), self.space, kept["job"]["two_sided"])
            self.supernet: Any = engine.oracle(self.space, (), stage, task)
            assert isinstance(self.supernet, SupernetScore)
            self.quality: Score = engine.learn(self.space, Remembered(self.supernet, stage), budgets, stage).score
        timed = [b for b in budgets if b.score.metric.name == "latency_ms"]
        self.limit_ms: float | None = timed[0].limit if timed else None
        self.cost: Score = timed[0].score if timed else Complexity(self.space, "macs")

    def _scores(self, source: Path) -> dict[str, Score]:
        from sartor.predictors import load

        files = sorted(source.glob("predictor-*.safetensors"))
        return {file.stem.partition("-")[2]: load(file, space=self.space) for file in files}


def adapt(
    source: Path,
    task: Task,
    run: Run,
    *,
    limit: str | None = None,
    blocks: int = 5,
    epochs: int = 0,
    threads: int = 1,
) -> dict[str, Json]:
    """Write a dynamic network to `dynamic/` of the run; what is known about it.

    limit: of latency, default that of the search, or 5 % more than the network found takes; blocks: kept in a slot at
    most; epochs: passes in which random networks of the blocks are trained with statistics of batch norms held fixed.
    """
    from sartor.dynamic import build
    from sartor.dynamic.blocks import Bank, keep_blocks
    from sartor.dynamic.controller import DynamicNetwork
    from sartor.predictors.evaluate import quality as agreement
    from sartor.quality.blocks import additive_macs, block_score
    from sartor.quality.supernet import Remembered, SupernetScore, train_supernet

    if limit is not None and parse_limit(limit)[0].name != "latency_ms":
        raise UserError(f"a dynamic network keeps a latency; {limit!r} is none: give one such as --limit 20ms.")
    searched = Searched(source, task)
    kept = keep_blocks(searched.space, searched.quality, searched.cost, searched.architecture, most=blocks)
    bank = Bank(kept, searched.supernet.supernet)
    bank.calibrate([x for x, _ in task.batches("train", size=256, seed=0, epoch=0, limit=CALIBRATION)])
    grade = SupernetScore(kept, bank, task, calibration=0)
    drawn = kept.sample(run.rng("check"), CHECKED)
    own = Shown(Remembered(searched.supernet, run.stage("own")), "networks with statistics of their own")
    alone = own([kept.lift(arch) for arch in drawn])
    untrained = Shown(Remembered(grade, run.stage("untrained")), "networks of untrained blocks")(drawn)
    if epochs:
        train_supernet(kept, task, run.stage("blocks"), epochs=epochs, batch_size=BATCH, lr=LR, supernet=bank)
    graded = Shown(Remembered(grade, run.stage("trained")), "grading blocks")
    contexts = kept.sample(run.rng("contexts"), CONTEXTS)
    worth = block_score(kept, graded, additive_macs(kept), contexts=contexts, mode="per_block").terms()
    assert worth is not None
    shared, predicted = graded(drawn), worth(kept, drawn)

    where = run.path / "dynamic"
    chain = build.write_blocks(bank.cpu(), where)
    found = tuple(k.index(j) for k, j in zip(kept.keep, searched.architecture))
    build.write_dynamic(where, bank, chain, worth, build.unmeasured(kept), task.metric, None)
    error = build.disagreement(where, bank, [found, *drawn[:5]])
    timing = build.measure_latency(where, bank, threads=threads, seed=run.seed)
    found_ms = float(timing.terms(kept, [found])[0])
    limit_ms = parse_limit(limit)[1] if limit else searched.limit_ms or ROOM * found_ms
    build.write_dynamic(where, bank, chain, worth, timing.terms, task.metric, limit_ms)
    network = DynamicNetwork(where, threads=threads)
    if not network.feasible:
        fastest = network.tables.latency(network.choice)
        raise Unreachable(f"the fastest network of these blocks takes {fastest:.3g} ms; give a --limit above that.")
    sign = 1.0 if task.metric.better == "more" else -1.0
    files = [where / file for file in network.files(found)]
    return {
        "metric": task.metric.name,
        "networks": kept.size,
        "blocks": {slot.name: list(slot.candidates) for slot in kept.slots},
        "limit_ms": limit_ms,
        "starts_with": list(network.choice),
        "front": front(network, STEPS),
        "found": {"blocks": list(found), "latency_ms": found_ms, task.metric.name: float(worth(kept, [found])[0])},
        "prediction": {
            **{k: v for k, v in agreement(predicted, shared).items() if k in ("spearman", "kendall", "rmse")},
            "networks": CHECKED,
        },
        "points": {"measured": shared.tolist(), "predicted": {"block tables": predicted.tolist()}},
        "lost_by_shared_statistics": {
            "mean": float(np.mean(sign * (alone - shared))),
            "most": float(np.max(sign * (alone - shared))),
            "untrained": float(np.mean(sign * (alone - untrained))),
        },
        "latency": {"networks": timing.networks, "rmse_percent": 100 * timing.error},
        "max_relative_error": error,
        "switch": build.switching(where, bank, threads=threads, seed=run.seed),
        "bytes": {
            "blocks": sum(file.stat().st_size for file in (where / "blocks").iterdir()),
            "network_found": sum(file.stat().st_size for file in files),
        },
        "directory": str(where),
    }


def front(network: Any, steps: int) -> list[dict[str, Json]]:
    """The best networks of the tables within limits that rise evenly from the fastest to the slowest."""
    tables = network.tables
    low = tables.latency(tables.fastest())
    best = tables.best(float("inf"))
    rows: list[dict[str, Json]] = []
    for most in np.linspace(low, tables.latency(best), steps):
        choice = tables.best(float(most) * (1 + 1e-9))
        if choice is not None and (not rows or list(choice) != rows[-1]["blocks"]):
            latency, quality = tables.latency(choice), tables.quality(choice)
            rows.append({"limit_ms": float(most), "latency_ms": latency, "quality": quality, "blocks": list(choice)})
    return rows


class Shown(Score):
    """A score that says how far it is."""

    def __init__(self, score: Score, what: str) -> None:
        self.score, self.what, self.space, self.metric = score, what, score.space, score.metric

    def __call__(self, archs: Sequence[Architecture]) -> F:  # type: ignore[override]
        return np.concatenate([self.score([arch]) for arch in progress(archs, self.what, len(archs))])
