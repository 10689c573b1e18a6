"""What a search step costs: time and activation memory of both updates against one stand-alone network.

Must show 4: weight update and architecture update each <= 1.10 x a training step of the same stand-alone network, in
time and in activation memory, and far below all-paths relaxation on the same space and batch. Parameters and
optimiser state are reported apart. Steps are timed in turn, so that a change of the machine's speed hits all alike.

Memory is what autograd keeps for the backward pass (saved tensors, each storage once), which is the activation memory.

    python benchmarks/step_cost.py [--full]
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import sartor
from common import Results, parser
from sartor.choose.relax import Relaxation, balance, hold
from sartor.core import METRICS, Budget, Path
from sartor.core.memory import keep_freed_memory
from sartor.core.score import SoftScore
from sartor.spaces.complexity import Complexity
from sartor.training.optimise import sgd

REDUCED = {"space": "mobilenet:lightnas?resolution=96&classes=100", "batch": 8, "rounds": 15, "all_paths_rounds": 3}
FULL = {"space": "mobilenet:lightnas?classes=100", "batch": 128, "rounds": 30, "all_paths_rounds": 5}


class AllPaths(nn.Module):
    """Every candidate of every slot, weighted by its probability: what single-path search avoids."""

    def __init__(self, supernet: Any) -> None:
        super().__init__()
        self.supernet = supernet

    def forward(self, x: Tensor, weights: tuple[Tensor, ...]) -> Tensor:
        for slot, column in zip(self.supernet.slots, self.supernet.columns):
            x = column[0](x) if slot is None else sum(w * m(x) for w, m in zip(weights[slot], column))
        return x


def main() -> None:
    given = parser(__doc__).parse_args()
    setting = FULL if given.full else REDUCED
    device = "cuda" if given.full and torch.cuda.is_available() else "cpu"
    torch.set_num_threads(1)
    keep_freed_memory()
    space = sartor.spaces.get(setting["space"])
    results = Results(
        f"step_cost{'_full' if given.full else ''}",
        "both updates <= 1.10 x a stand-alone training step in time and activation memory",
        {**setting, "device": device, "threads": 1},
    )
    results.row({"what": "steps"}, lambda: _measure(space, setting, device))
    row = results.data["rows"][0]
    alone = row["stand-alone"]
    results.summarise(
        **{
            name: {"time_ratio": row[name]["ms"] / alone["ms"], "memory_ratio": row[name]["mb"] / alone["mb"]}
            for name in ("weight update", "architecture update", "all paths")
        },
        stand_alone=alone,
        parameters=row["parameters"],
    )


def _measure(space: Any, setting: dict[str, Any], device: str) -> dict[str, Any]:
    torch.manual_seed(0)
    arch = space.sample(np.random.default_rng(0), 1)[0]
    batch = setting["batch"]
    x = space.inputs(batch)[0].to(device, memory_format=torch.channels_last)
    y = torch.randint(0, 100, (batch,), device=device)
    alone = space.network(arch).to(device, memory_format=torch.channels_last)
    supernet = space.supernet().to(device, memory_format=torch.channels_last)
    relaxation = Relaxation(space, torch.Generator().manual_seed(0)).to(device)
    score = Complexity(space, "macs")
    assert isinstance(score, SoftScore)
    budget = Budget(score, float(score([arch])[0]))
    optimisers = {
        "alone": sgd(alone, lr=1e-3, weight_decay=3e-5),
        "weights": sgd(supernet, lr=1e-3, weight_decay=3e-5),
        "logits": torch.optim.Adam(relaxation.parameters(), 1e-3),
    }
    every = AllPaths(supernet)

    def loss(output: Tensor) -> Tensor:
        return nn.functional.cross_entropy(output, y)

    def gates() -> tuple[Tensor, ...]:
        """Straight-through gates of the same architecture that the stand-alone network is."""
        return tuple(
            nn.functional.one_hot(torch.tensor(k, device=device), len(p)).float() + (p - p.detach())
            for k, p in zip(arch, relaxation.probabilities())
        )

    def stand_alone() -> None:
        optimisers["alone"].zero_grad(set_to_none=True)
        loss(alone(x)).backward()
        nn.utils.clip_grad_norm_(alone.parameters(), 5.0)
        optimisers["alone"].step()

    def weight_update() -> None:
        optimisers["weights"].zero_grad(set_to_none=True)
        loss(supernet(x, path=Path(arch))).backward()
        nn.utils.clip_grad_norm_([p for p in supernet.parameters() if p.grad is not None], 5.0)
        optimisers["weights"].step()

    def architecture_update() -> None:
        supernet.requires_grad_(False)
        optimisers["logits"].zero_grad(set_to_none=True)
        loss(supernet(x, path=Path(arch, gates()))).backward()
        balance(relaxation, [budget], [budget.limit])
        optimisers["logits"].step()
        hold(relaxation, [budget], [budget.limit])
        supernet.requires_grad_(True)

    def all_paths() -> None:
        optimisers["weights"].zero_grad(set_to_none=True)
        loss(every(x, relaxation.probabilities())).backward()
        optimisers["weights"].step()

    steps = {
        "stand-alone": stand_alone,
        "weight update": weight_update,
        "architecture update": architecture_update,
        "all paths": all_paths,
    }
    memory = {
        "stand-alone": _kept(lambda: loss(alone(x)), alone),
        "weight update": _kept(lambda: loss(supernet(x, path=Path(arch))), supernet),
        "architecture update": _kept(
            lambda: _frozen(supernet, lambda: loss(supernet(x, path=Path(arch, gates())))), supernet
        ),
        "all paths": _kept(lambda: loss(every(x, relaxation.probabilities())), supernet),
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(setting["rounds"] + 1):
        for name, step in steps.items():
            if name == "all paths" and round_ > setting["all_paths_rounds"]:
                continue
            began = time.perf_counter()
            step()
            if device == "cuda":
                torch.cuda.synchronize()
            if round_:  # the first round is warm-up
                times[name].append((time.perf_counter() - began) * 1e3)
    size = sum(p.numel() for p in supernet.parameters()) * 4e-6
    return {
        **{n: {"ms": float(np.median(t)), "fastest_ms": min(t), "mb": memory[n]} for n, t in times.items()},
        "parameters": {
            "stand_alone_mb": sum(p.numel() for p in alone.parameters()) * 4e-6,
            "supernet_mb": size,
            "supernet_momentum_mb_at_most": size,
        },
        "metric": METRICS["latency_ms"].unit,
    }


def _frozen(supernet: Any, forward: Callable[[], Tensor]) -> Tensor:
    supernet.requires_grad_(False)
    out = forward()
    supernet.requires_grad_(True)
    return out


def _kept(forward: Callable[[], Tensor], network: nn.Module) -> float:
    """MB of tensors kept for the backward pass, parameters and buffers apart."""
    own = {t.untyped_storage().data_ptr() for t in (*network.parameters(), *network.buffers())}
    kept: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = forward()
    del out
    return sum(kept.values()) / 1e6


if __name__ == "__main__":
    main()
