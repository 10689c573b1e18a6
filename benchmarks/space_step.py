"""What a step of Network Space Search costs, in time and activation memory, against the widest stand-alone network.

Must show (issue Network Space Search, 5): <= 1.3 times both. A weight update of a uniformly drawn network, and of the
largest, as the warm-up begins with; a logit update, masks, controller and all; a training step of the largest network
alone. Steps in turn; memory is what autograd keeps for the backward pass. Wants a quiet machine.

Reduced: width, depth and resolution. Full: 16 x 512 at 32 pixels, on a GPU.

    python benchmarks/space_step.py [--full]
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import sartor
from common import Results, parser
from sartor.choose.relax import Relaxation, aims_of, settle, spread
from sartor.choose.solve import check_reachable
from sartor.core import Budget, Path
from sartor.core.memory import image_layout, keep_freed_memory
from sartor.spaces.complexity import Complexity
from sartor.spaces.windows import Windows, mean
from sartor.training.optimise import make_optimiser
from step_cost import peak

REDUCED: dict[str, Any] = {"space": "expanded?depth=8&width=64&resolution=16", "depths": 2, "widths": 8, "batch": 32}
FULL: dict[str, Any] = {"space": "expanded", "depths": 4, "widths": 32, "batch": 64}
ROUNDS = 9


def main() -> None:
    given = parser(__doc__).parse_args()
    setting = FULL if given.full else REDUCED
    device = "cuda" if given.full and torch.cuda.is_available() else "cpu"
    torch.set_num_threads(1)
    keep_freed_memory()
    results = Results(
        f"space_step{'_full' if given.full else ''}",
        "a step <= 1.3 times a training step of the widest network, in time and activation memory",
        {**setting, "device": device, "threads": 1, "rounds": ROUNDS},
    )
    results.row({"what": "steps"}, lambda: _measure(setting, device))
    row = results.data["rows"][0]
    alone = row["largest, stand-alone"]
    results.summarise(
        rows=[
            {
                "step": name,
                "ms": one["ms"],
                "time / stand-alone": one["ms"] / alone["ms"],
                "MB": one["mb"],
                "memory / stand-alone": one["mb"] / alone["mb"],
            }
            for name, one in row.items()
            if name != "cell"
        ]
    )


def _measure(setting: dict[str, Any], device: str) -> dict[str, Any]:
    torch.manual_seed(0)
    space: Any = sartor.spaces.get(setting["space"])
    windows = Windows(space, setting["depths"], setting["widths"])
    largest = tuple(len(slot) - 1 for slot in space.slots)
    x = space.inputs(setting["batch"])[0].to(device, memory_format=image_layout(device))
    y = torch.randint(0, space.classes, (setting["batch"],), device=device)
    alone = space.network(largest).to(device, memory_format=image_layout(device))
    supernet = space.supernet().to(device, memory_format=image_layout(device))
    relaxation = Relaxation(windows, torch.Generator().manual_seed(0)).to(device)
    score = mean(Complexity(space, "macs"), windows)
    budgets = [Budget(score, float(np.median(score(windows.sample(np.random.default_rng(0), 1000)))))]
    aims = aims_of(budgets, check_reachable(windows, budgets))
    by_alone = make_optimiser(alone, "sgd", lr=1e-3, weight_decay=3e-4)
    w = make_optimiser(supernet, "sgd", lr=1e-3, weight_decay=3e-4)
    alpha = torch.optim.Adam(relaxation.parameters(), 1e-3)
    rng, gumbel = np.random.default_rng(1), torch.Generator().manual_seed(1)

    def update(network: nn.Module, by: torch.optim.Optimizer, run: Any) -> None:
        by.zero_grad(set_to_none=True)
        loss(run(x)).backward()
        nn.utils.clip_grad_norm_([p for p in network.parameters() if p.grad is not None], 5.0)
        by.step()

    def loss(output: Tensor) -> Tensor:
        return nn.functional.cross_entropy(output, y)

    def drawn() -> None:
        path = windows.path(relaxation.sample(5.0, gumbel), windows.places(rng))
        update(supernet, w, partial(supernet, path=Path(path.index)))

    def logits() -> None:
        supernet.requires_grad_(False)
        path = windows.path(relaxation.sample(5.0, gumbel), windows.places(rng))
        alpha.zero_grad(set_to_none=True)
        (loss(supernet(x, path=path)) + spread(relaxation, budgets)).backward()
        settle(relaxation, budgets, aims, alpha, 0.5)
        supernet.requires_grad_(True)

    steps = {
        "largest, stand-alone": partial(update, alone, by_alone, alone),
        "weights, largest": partial(update, supernet, w, partial(supernet, path=Path(largest))),
        "weights, drawn": drawn,
        "logits": logits,
    }
    memory = {name: peak(step, [supernet, alone, relaxation]) for name, step in steps.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(ROUNDS + 1):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            if device == "cuda":
                torch.cuda.synchronize()
            if round_:  # the first is warm-up
                times[name].append(1e3 * (time.perf_counter() - began))
    return {name: {"ms": float(np.median(took)), "mb": memory[name]} for name, took in times.items()}


if __name__ == "__main__":
    main()
