"""A dynamic network as files: blocks in ONNX, tables of what they cost and are worth, and the controller."""

from __future__ import annotations

import pathlib
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from typing import Any

import numpy as np
import torch

from sartor.core import METRICS, Architecture, F, Json, Metric, Path, SearchSpace, Terms, UserError
from sartor.core.method import Measurement
from sartor.dynamic.blocks import Bank
from sartor.dynamic.controller import DynamicNetwork
from sartor.export.graphs import onnx_models
from sartor.predictors.ridge import Ridge
from sartor.runs import write_atomic, write_json
from sartor.targets.timing import Rounds, Runnable, interleave, visit

AGREE = 1e-3  # of the largest output: how far a chain of blocks may be from the network
A_BLOCK = 1.5  # networks measured for each block there is
ROUNDS = Rounds(rounds=8)


def write_blocks(bank: Bank, directory: pathlib.Path) -> list[dict[str, Json]]:
    """Every piece as an ONNX file of its own; the chain as the controller reads it."""
    (directory / "blocks").mkdir(parents=True, exist_ok=True)
    modules, inputs, names = [], [], []
    chain: list[dict[str, Json]] = []
    for i, (slot, (shape,), pieces) in enumerate(zip(bank.slots, bank.inputs, bank.pieces)):
        name = ("first" if i == 0 else "last") if slot is None else bank.kept.slots[slot].name
        blocks = [""] if slot is None else list(bank.kept.slots[slot].candidates)
        made = [f"blocks/{i:02d}-{k}.onnx" for k in range(len(blocks))]
        chain.append({"name": name, "slot": slot, "blocks": blocks, "files": made})
        for file, piece in zip(made, pieces):  # type: ignore[call-overload]
            modules.append(bank.kept.deploy(piece))
            inputs.append((torch.randn(1, *shape),))
            names.append(file)
    for file, model in zip(names, onnx_models(modules, inputs)):
        write_atomic(directory / file, model.SerializeToString())
    return chain


def write_dynamic(
    directory: pathlib.Path,
    bank: Bank,
    chain: Sequence[Json],
    quality: Terms,
    latency: Terms,
    metric: Metric,
    limit_ms: float | None,
    prepared: Json = None,
) -> None:
    """`dynamic.json` and `controller.py` beside the blocks. prepared: how pixels become inputs."""

    def sums(terms: Terms) -> dict[str, Json]:
        return {"const": float(terms.const), "blocks": [np.asarray(u, dtype=float).tolist() for u in terms.unary]}

    data = {
        "schema": 1,
        "space": bank.kept.spec(),
        "metric": metric.name,
        "unit": metric.unit,
        "better": metric.better,
        "limit_ms": limit_ms,
        "inputs": [[1, *shape] for shape in bank.inputs[0]],
        "input": prepared,
        "chain": list(chain),
        "latency_ms": sums(latency),
        "quality": {**sums(quality), "over": None if quality.over is None else sums(quality.over)},
    }
    write_json(directory / "dynamic.json", data)
    with_controller = files("sartor.dynamic").joinpath("controller.py")
    shutil.copyfile(str(with_controller), directory / "controller.py")


def disagreement(directory: pathlib.Path, bank: Bank, archs: Sequence[Architecture]) -> float:
    """Largest difference between files and networks, over the largest output. Raises UserError above AGREE."""
    network, worst = DynamicNetwork(directory, resident=True), 0.0
    x = torch.randn(1, *bank.inputs[0][0], generator=torch.Generator().manual_seed(0))
    for arch in archs:
        network.switch(arch)
        with torch.no_grad():
            expected = bank(x, path=Path(arch)).numpy()
        worst = max(worst, float(np.abs(network.run(x.numpy()) - expected).max() / np.abs(expected).max()))
    if not worst <= AGREE:
        raise UserError(f"blocks in ONNX differ from the network by {worst:.2g} of its output; report it.")
    return worst


@dataclass(frozen=True)
class Timing:
    """Latency of networks run block by block: as fitted, and how far held-out networks are from that."""

    terms: Terms
    networks: int
    error: float
    """RMSE over mean, of a fifth of the networks not fitted on."""


def measure_latency(directory: pathlib.Path, bank: Bank, *, threads: int, seed: int) -> Timing:
    """Random networks, run as they will be, in interleaved rounds; a sum over blocks is fitted to what they take."""
    network = DynamicNetwork(directory, threads=threads, resident=True)
    blocks = sum(len(slot) for slot in bank.kept.slots)
    archs = bank.kept.sample(np.random.default_rng([seed, 1]), max(20, round(A_BLOCK * blocks)))
    x = torch.randn(1, *bank.inputs[0][0]).numpy()

    def ready(arch: Architecture) -> Runnable:
        network.switch(arch)
        return partial(network.run, x)

    def sample(prepare: Any) -> float:
        return visit(prepare(), ROUNDS.visit_ms, ROUNDS.visit_runs)

    runs = [partial(ready, arch) for arch in archs]
    timed = interleave(runs, runs[0], sample, ROUNDS.rounds, np.random.default_rng(seed))
    anchor = min(timed[0].reference)
    values = np.array(
        [
            Measurement(bank.kept.key(arch), arch, "latency_ms", one.samples, one.reference, anchor=anchor).value
            for arch, one in zip(archs, timed)
        ]
    )
    fitted, held = _ridge(bank, archs[len(archs) // 5 :], values[len(archs) // 5 :]), slice(0, len(archs) // 5)
    off = fitted(bank.kept, archs[held]) - values[held]
    error = float(np.sqrt(np.mean(off**2)) / values[held].mean())
    return Timing(_ridge(bank, archs, values), len(archs), error)


def unmeasured(space: SearchSpace) -> Terms:
    """Tables of blocks that take no time, until they are measured."""
    return Terms(0.0, tuple(np.zeros(len(slot)) for slot in space.slots))


def _ridge(bank: Bank, archs: Sequence[Architecture], values: F) -> Terms:
    terms = Ridge().fit(bank.kept, archs, values, metric=METRICS["latency_ms"]).terms()
    assert terms is not None
    return terms


def switching(directory: pathlib.Path, bank: Bank, *, threads: int, seed: int, count: int = 40) -> dict[str, Json]:
    """Milliseconds that an exchange takes: between random networks, and of one block."""
    network = DynamicNetwork(directory, threads=threads)
    rng = np.random.default_rng([seed, 2])
    whole, one = [], []
    for arch in bank.kept.sample(rng, count):
        began = time.perf_counter()
        network.switch(arch)
        whole.append((time.perf_counter() - began) * 1e3)
        i = int(rng.integers(len(arch)))
        k = int(rng.integers(len(bank.kept.slots[i])))
        if k != arch[i]:
            began = time.perf_counter()
            network.switch((*arch[:i], k, *arch[i + 1 :]))
            one.append((time.perf_counter() - began) * 1e3)
    return {"random_networks_ms": float(np.median(whole)), "one_block_ms": float(np.median(one))}
