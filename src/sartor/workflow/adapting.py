"""From a search with a supernet to a dynamic network: blocks chosen, graded, written, timed."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sartor.core import Architecture, F, Json, Score, Task, Terms, Unreachable, UserError, parse_limit
from sartor.core.progress import progress
from sartor.core.restricted import Restricted
from sartor.runs import Run, read_json
from sartor.workflow.networks import load_architecture
from sartor.workflow.searching import budgets_of_run

if TYPE_CHECKING:
    from sartor.quality.blocks import Macs

CONTEXTS = 4  # random networks in which each block is graded
CHECKED = 30  # random networks that predictions are compared with
CALIBRATION = 4  # batches
BATCH, LR = 64, 0.02  # of blocks trained together
TOGETHER = 2500  # steps of that, unless epochs are given
STEPS = 12  # limits on the front
TOLD = 0.5  # rank correlation of the tables below which they are warned about
logger = logging.getLogger("sartor")
ROOM = 1.05  # times the latency of the network found, where no limit is known


class Searched:
    """A finished search of mathnas with a supernet, opened again: nothing is trained or asked twice.

    space, architecture: what was found; of a restricted space in that of its base, as blocks are kept there.
    """

    def __init__(self, source: Path, task: Task) -> None:
        from sartor.methods.mathnas import MathNAS

        self._searched, self._found = load_architecture(source)
        result = read_json(source / "result.json")
        if result.get("method") != "mathnas" or not (source / "search" / "supernet").is_dir():
            raise UserError(
                f"{source} is no search of mathnas with a supernet, which blocks are taken from; run "
                "`sartor search mathnas` on a space that has one."
            )
        self._source, self._task, self._kept = source, task, read_json(source / "run.json")
        self._asked: Any = None
        self._engine: Any = MathNAS.of(result["settings"])
        self._budgets = budgets_of_run(source, self._searched)
        with self._opened() as run:
            self._asked = self._engine.oracle(self._searched, (), run.stage("search"), task)
        self.space, self.architecture, self.supernet = self._searched, self._found, self._asked.supernet
        if isinstance(self._searched, Restricted):
            self.space, self.architecture = self._searched.base, self._searched.lift(self._found)
            self.supernet = self._asked.supernet.base

    def score(self) -> Score:
        """Sub-networks with batch-norm statistics of their own."""
        from sartor.quality.supernet import SupernetScore

        calibration, limit = self._engine.calibration, self._engine.valid_batches
        return SupernetScore(self.space, self.supernet, self._task, calibration=calibration, limit=limit)

    def limit_ms(self, target: str) -> float | None:
        """The limit of the search on latency, where it was for this target."""
        timed = [b.limit for b in self._budgets if b.score.metric.name == "latency_ms"]
        return timed[0] if timed and self._kept["job"]["target"] == target else None

    def keep(self, most: int) -> list[tuple[int, ...]]:
        """Blocks by slot, by what the search has learnt."""
        from sartor.dynamic.blocks import keep_blocks
        from sartor.quality.supernet import Remembered
        from sartor.spaces.complexity import Complexity

        with self._opened() as run:
            stage = run.stage("search")
            asked = Remembered(self._asked, stage)
            quality: Score = self._engine.learn(self._searched, asked, self._budgets, stage).score
        timed = [b.score for b in self._budgets if b.score.metric.name == "latency_ms"]
        cost = timed[0] if timed else Complexity(self._searched, "macs")
        return list(keep_blocks(self._searched, quality, cost, self._found, most=most).keep)

    def _opened(self) -> Run:
        return Run(self._source, self._kept["job"], self._kept["seed"])


def adapt(
    source: Path,
    task: Task,
    run: Run,
    *,
    limit: str | None = None,
    blocks: int = 5,
    epochs: int | None = None,
    threads: int = 1,
) -> dict[str, Json]:
    """Write a dynamic network to `dynamic/` of the run; what is known about it.

    limit: of latency, default that of the search where it was for this processor, or 5 % more than the network found
    takes; blocks: kept in a slot at most; epochs: passes in which random networks of the blocks are trained with
    statistics of batch norms held fixed, default as many as make 2,500 steps.
    """
    from sartor import targets
    from sartor.dynamic import build
    from sartor.dynamic.blocks import Bank
    from sartor.dynamic.controller import DynamicNetwork
    from sartor.quality.supernet import Remembered, SupernetScore, train_supernet
    from sartor.training.optimise import steps_per_epoch

    if limit is not None and parse_limit(limit)[0].name != "latency_ms":
        raise UserError(f"a dynamic network keeps a latency; {limit!r} is none: give one such as --limit 20ms.")
    searched = Searched(source, task)
    keep = run.memo("keep", lambda: [list(k) for k in searched.keep(blocks)])
    kept = Restricted(searched.space, dict(enumerate(keep)))
    bank = Bank(kept, searched.supernet)
    bank.calibrate([x for x, _ in task.batches("train", size=256, seed=0, epoch=0, limit=CALIBRATION)])
    grade = SupernetScore(kept, bank, task, calibration=0)
    drawn = kept.sample(run.rng("check"), CHECKED)
    own = Shown(Remembered(searched.score(), run.stage("own")), "networks with statistics of their own")
    alone = own([kept.lift(arch) for arch in drawn])
    untrained = Shown(Remembered(grade, run.stage("untrained")), "networks of untrained blocks")(drawn)
    epochs = math.ceil(TOGETHER / steps_per_epoch(task, "train", BATCH)) if epochs is None else epochs
    if epochs:
        train_supernet(kept, task, run.stage("blocks"), epochs=epochs, batch_size=BATCH, lr=LR, supernet=bank)
    graded = Shown(Remembered(grade, run.stage("trained")), "grading blocks")
    contexts = kept.sample(run.rng("contexts"), CONTEXTS)
    shared = graded(drawn)
    worth, predicted, told = _tables(kept, graded, contexts, drawn, shared)

    where = run.path / "dynamic"
    chain = build.write_blocks(bank.cpu(), where)
    found = tuple(k.index(j) for k, j in zip(kept.keep, searched.architecture))
    prepared = getattr(task, "normalisation", None)
    build.write_dynamic(where, bank, chain, worth, build.unmeasured(kept), task.metric, None, prepared)
    error = build.disagreement(where, bank, [found, *drawn[:5]])
    timing = build.measure_latency(where, bank, threads=threads, seed=run.seed)
    found_ms = float(timing.terms(kept, [found])[0])
    local = targets.get(f"onnxruntime:cpu?threads={threads}&batch=1").id
    limit_ms = parse_limit(limit)[1] if limit else searched.limit_ms(local) or ROOM * found_ms
    build.write_dynamic(where, bank, chain, worth, timing.terms, task.metric, limit_ms, prepared)
    network = DynamicNetwork(where, threads=threads)
    if not network.feasible:
        fastest = network.tables.latency(network.choice)
        raise Unreachable(f"the fastest network of these blocks takes {fastest:.3g} ms; give a --limit above that.")
    files = [where / file for file in network.files(found)]
    rows = front(network, STEPS)
    bank.to(task.device)
    for row, value in zip(rows, grade([row["blocks"] for row in rows])):
        row["graded"] = float(value)
    return {
        "metric": task.metric.name,
        "networks": kept.size,
        "blocks": {slot.name: list(slot.candidates) for slot in kept.slots},
        "limit_ms": limit_ms,
        "starts_with": list(network.choice),
        "front": rows,
        "found": {"blocks": list(found), "latency_ms": found_ms, task.metric.name: float(worth(kept, [found])[0])},
        "prediction": {**told, "networks": CHECKED},
        "points": {"measured": shared.tolist(), "predicted": {"block tables": predicted.tolist()}},
        "statistics": {
            "own": float(np.mean(alone)),
            "shared": float(np.mean(untrained)),
            "shared, trained": float(np.mean(shared)),
            "epochs": epochs,
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


def _tables(
    kept: Restricted, graded: Score, contexts: Sequence[Architecture], drawn: Sequence[Architecture], values: F
) -> tuple[Terms, F, dict[str, Json]]:
    """Block tables of `graded`, what they say of the networks drawn, and how far that is from their values.

    With the law of MACs or without (Eq. 5), whichever is nearer: small networks divide by a small F.
    """
    from sartor.predictors.evaluate import quality as agreement
    from sartor.quality.blocks import additive_macs, block_score

    made: list[tuple[float, Terms, F, dict[str, Json]]] = []
    modes: tuple[Macs, ...] = ("per_block", "none")
    for mode in modes:
        terms = block_score(kept, graded, additive_macs(kept), contexts=contexts, mode=mode).terms()
        assert terms is not None
        said = terms(kept, drawn)
        told = {k: v for k, v in agreement(said, values).items() if k in ("spearman", "kendall", "rmse")}
        made.append((told["rmse"], terms, said, {**told, "macs": mode}))
    _, terms, said, told = min(made, key=lambda one: one[0])
    if not told["spearman"] >= TOLD:
        logger.warning(
            "the tables order %d random networks with a rank correlation of %.2f: the controller will choose poorly; "
            "train the supernet longer, or these blocks for more --epochs",
            len(drawn),
            told["spearman"],
        )
    return terms, said, told


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
