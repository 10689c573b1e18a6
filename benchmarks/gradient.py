"""Where the logits' gradient points: estimators of d E[loss] / dlogits against what the losses of many paths say.

A supernet is trained on uniformly drawn paths. At several moments the expected loss under the uniform P is
differentiated by force: the mean loss of the paths through each candidate, over thousands of paths on validation
batches, relative to the mean of all paths on the same batch. Its two halves tell how well it is known. Against it stand
the mean of the straight-through gradient of as many paths (Eq. 4.12), at two temperatures, and how long an update of
either estimator points the right way: the cosine of a single update with the forced gradient. The supernet is in
training mode, as it is in a search, without and with an identity mapping around its layers (at constant weight).

    python benchmarks/gradient.py [--full] [--data digits|cifar10]
"""

from __future__ import annotations

import itertools
import os
import time
from typing import Any

import numpy as np
import torch
from torch import nn

import sartor
from common import Results, parser
from sartor.choose.relax import Relaxation
from sartor.core import Path
from sartor.core.memory import image_layout, keep_freed_memory
from sartor.supernet import IdentityMapping
from sartor.training.optimise import cosine, make_optimiser, set_lr, steps_per_epoch
from sartor.training.tasks import for_search

REDUCED: dict[str, dict[str, Any]] = {
    "digits": {"space": "mobilenet:cifar?channels=1&resolution=8&width=0.5", "data": "digits", "batch": 32},
    "cifar10": {
        "space": "mobilenet:cifar?width=0.5&resolution=20",
        "data": "parquet:{data}/cifar10?images=6000&resolution=20",
        "batch": 64,
    },
}
FULL = {"cifar10": {"space": "mobilenet:cifar", "data": "parquet:{data}/cifar10", "batch": 128}}
EPOCHS = {"digits": (12, 26, 40), "cifar10": (7, 14, 24)}
SEEDS = {"digits": (0,), "cifar10": (0,)}
IDENTITIES = (0.0, 1.0)
PATHS, DIFFERENTIATED = 4000, 500


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--data", choices=list(REDUCED), default="digits")
    given = options.parse_args()
    torch.set_num_threads(torch.get_num_threads() if given.full else 1)
    setting = (FULL if given.full else REDUCED)[given.data]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    keep_freed_memory()
    space = sartor.spaces.get(setting["space"])
    images = setting["data"].format(data=os.environ.get("SARTOR_DATA", "../shared/data"))
    task = for_search(sartor.tasks.get(images, device))
    results = Results(
        f"gradient_{given.data}{'_full' if given.full else ''}",
        "cosine of estimators of the logits' gradient with that of the expected loss",
        {**setting, "epochs": EPOCHS[given.data], "paths": PATHS, "differentiated": DIFFERENTIATED},
    )
    for seed in SEEDS[given.data]:
        for phi in IDENTITIES:
            search_free(results, space, task, setting["batch"], EPOCHS[given.data], seed, phi, device)
    rows = results.data["rows"]
    summary = []
    for phi, epoch in itertools.product(IDENTITIES, EPOCHS[given.data]):
        mine = [row for row in rows if (row["cell"]["identity"], row["cell"]["epoch"]) == (phi, epoch)]
        if mine:
            means = {k: float(np.mean([r[k] for r in mine])) for k in mine[0] if k != "cell"}
            summary.append({"identity": phi, "epoch": epoch, "seeds": len(mine)} | means)
    results.summarise(rows=summary)


def search_free(
    results: Results, space: Any, task: Any, size: int, moments: tuple[int, ...], seed: int, phi: float, device: str
) -> None:
    """Train a supernet on uniform paths, as long as the last of `moments`; compare at each of them."""
    cells = [{"seed": seed, "identity": phi, "epoch": e} for e in moments]
    if all(cell in [row["cell"] for row in results.data["rows"]] for cell in cells):
        return
    torch.manual_seed(seed)
    supernet: Any = space.supernet()
    around = IdentityMapping(space, supernet) if phi else None
    trained: Any = nn.ModuleList([m for m in (supernet, around) if m is not None])
    trained.to(device, memory_format=image_layout(device))
    if around is not None:
        around.phi = phi
    relaxation = Relaxation(space, torch.Generator().manual_seed(seed)).to(device)
    with torch.no_grad():
        relaxation.logits.zero_()
    w = make_optimiser(trained, "sgd", lr=0.05, weight_decay=3e-5, decay_bias_and_norm=True)
    draws, steps = torch.Generator().manual_seed(seed), steps_per_epoch(task, "train", size)
    for epoch in range(moments[-1]):
        trained.train()
        for i, batch in enumerate(task.batches("train", size=size, seed=seed, epoch=epoch)):
            set_lr(w, cosine(epoch * steps + i, moments[-1] * steps, peak=0.05))
            index = relaxation.sample(1.0, draws).index
            w.zero_grad(set_to_none=True)
            loss = task.loss(lambda *x, a=index: supernet(*x, path=Path(a, None, around)), batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_([p for p in trained.parameters() if p.grad is not None], 5.0)
            w.step()
        if epoch + 1 in moments:
            cell = {"seed": seed, "identity": phi, "epoch": epoch + 1}
            results.row(cell, lambda: compare(task, supernet, around, relaxation, size, seed))


def compare(task: Any, supernet: Any, around: Any, relaxation: Relaxation, size: int, seed: int) -> dict[str, Any]:
    """Cosines over all logits, rows centred: what all candidates of a slot share moves nothing."""
    supernet.train()
    supernet.requires_grad_(False)
    batches = itertools.cycle(
        list(task.batches("valid", size=size, seed=0, epoch=0, limit=task.length("valid") // size))
    )
    draws = torch.Generator().manual_seed(1000 + seed)
    shape = tuple(relaxation.logits.shape)

    def loss(path: Path, batch: Any) -> torch.Tensor:
        return task.loss(lambda *x: supernet(*x, path=Path(path.index, path.gates, around)), batch)

    began = time.process_time()
    groups = []  # of ten paths on a batch
    with torch.no_grad():
        for _ in range(PATHS // 10):
            batch, paths = next(batches), [relaxation.sample(1.0, draws) for _ in range(10)]
            groups.append((paths, [float(loss(Path(p.index), batch)) for p in paths]))
    forward = (time.process_time() - began) / PATHS
    halves = [np.zeros(shape), np.zeros(shape)]
    counts = [np.zeros(shape), np.zeros(shape)]
    for n, (paths, losses) in enumerate(groups):
        for path, value in zip(paths, losses):
            for i, k in enumerate(path.index):
                halves[n % 2][i, k] += value - np.mean(losses)
                counts[n % 2][i, k] += 1
    forced = [h / np.maximum(c, 1) for h, c in zip(halves, counts)]
    out = {
        "mean loss": float(np.mean([value for _, losses in groups for value in losses])),
        "spread of paths": float(np.mean([np.std(losses) for _, losses in groups])),
        "known to (cosine of halves)": _cosine(*forced),
    }
    for tau in (5.0, 1.0):
        total, single = torch.zeros(shape), []
        began = time.process_time()
        for _ in range(DIFFERENTIATED):
            path, batch = relaxation.sample(tau, draws), next(batches)
            relaxation.logits.grad = None
            loss(path, batch).backward()
            total += relaxation.logits.grad.cpu()
            single.append(np.mean([_cosine(relaxation.logits.grad.cpu().numpy(), half) for half in forced]))
        out[f"straight-through at {tau:g}, mean of all"] = np.mean([_cosine(total.numpy(), half) for half in forced])
        out[f"straight-through at {tau:g}, one update"] = float(np.mean(single))
    out["straight-through, CPU ms an update"] = 1e3 * (time.process_time() - began) / DIFFERENTIATED
    for most in (2, 4, 8):
        single = []
        for n, (paths, losses) in enumerate(groups):  # against the half that it is not part of
            relaxation.logits.grad = None
            score_gradient(relaxation, paths[:most], losses[:most]).backward()
            single.append(_cosine(relaxation.logits.grad.cpu().numpy(), forced[1 - n % 2]))
        out[f"score of {most} paths, one update"] = float(np.mean(single))
    out["score, CPU ms a path"] = 1e3 * forward
    supernet.requires_grad_(True)
    return out


def score_gradient(relaxation: Relaxation, paths: list[Path], losses: list[float]) -> torch.Tensor:
    """Scalar whose gradient estimates that of the expected loss, from the losses of paths drawn from P alone.

    E[(loss - b) dlog P(path)], b the mean loss of the other paths on the batch (W. Kool et al., "Buy 4 REINFORCE
    samples, get a baseline for free!", 2019): unbiased, and no path is differentiated.
    """
    log_p, mean = relaxation.log_p(), sum(losses) / len(losses)
    likelihoods = [torch.stack([log_p[i, k] for i, k in enumerate(path.index)]).sum() for path in paths]
    return torch.stack([(loss - mean) / (len(losses) - 1) * p for loss, p in zip(losses, likelihoods)]).sum()


def _cosine(a: Any, b: Any) -> float:
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    return float((a * b).sum() / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-30))


if __name__ == "__main__":
    main()
