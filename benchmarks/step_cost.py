"""What a search step costs: time and activation memory of both updates against one stand-alone network.

Must show 4: weight update and architecture update each <= 1.10 x a training step of the same stand-alone network, in
time and in activation memory, and far below all-paths relaxation on the same space and batch. Parameters and
optimiser state are reported apart. Steps are timed in turn, so that a change of the machine's speed hits all alike. The
identity mapping that both methods add to their layers is reported apart from the single path itself.

SurgeNAS (issue of that name, must show 2): a step of K ordered paths against the same K paths trained one by one, and
its peak memory against one of them and against all K held at once.

Memory is what autograd keeps for the backward pass (saved tensors, each storage once), which is the activation memory;
of SurgeNAS, the most that is kept at any moment of the step.

    python benchmarks/step_cost.py [--full]
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import sartor
from common import Results, parser
from sartor.choose.relax import Relaxation, balance, hold
from sartor.core import METRICS, Architecture, Budget, Path
from sartor.core.memory import image_layout, keep_freed_memory
from sartor.core.score import SoftScore
from sartor.spaces.complexity import Complexity
from sartor.supernet import IdentityMapping
from sartor.training.optimise import make_optimiser

REDUCED = {"space": "mobilenet:lightnas?resolution=96&classes=100", "batch": 8, "rounds": 15, "all_paths_rounds": 3}
RARELY = ("SurgeNAS step", "its paths one by one", "its paths held at once", "all paths")
UPDATES = ("weight update", "architecture update", "weight update, identity", "architecture update, identity")
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
    ours, single = row["SurgeNAS step"], row["its paths one by one"]
    results.summarise(
        **{
            name: {"time_ratio": row[name]["ms"] / alone["ms"], "memory_ratio": row[name]["mb"] / alone["mb"]}
            for name in (*UPDATES, "all paths")
        },
        surgenas_time_over_its_paths_one_by_one=ours["ms"] / single["ms"],
        surgenas_peak_memory_over_its_largest_path=ours["mb"] / single["mb"],
        surgenas_peak_memory_over_all_paths_held=ours["mb"] / row["its paths held at once"]["mb"],
        stand_alone=alone,
        parameters=row["parameters"],
    )


def _measure(space: Any, setting: dict[str, Any], device: str) -> dict[str, Any]:
    torch.manual_seed(0)
    arch = space.sample(np.random.default_rng(0), 1)[0]
    batch = setting["batch"]
    x = space.inputs(batch)[0].to(device, memory_format=image_layout(device))
    y = torch.randint(0, 100, (batch,), device=device)
    alone = space.network(arch).to(device, memory_format=image_layout(device))
    supernet = space.supernet().to(device, memory_format=image_layout(device))
    relaxation = Relaxation(space, torch.Generator().manual_seed(0)).to(device)
    score = Complexity(space, "macs")
    assert isinstance(score, SoftScore)
    budget = Budget(score, float(score([arch])[0]))
    optimisers = {
        "alone": make_optimiser(alone, "sgd", lr=1e-3, weight_decay=3e-5),
        "weights": make_optimiser(supernet, "sgd", lr=1e-3, weight_decay=3e-5),
        "logits": torch.optim.Adam(relaxation.parameters(), 1e-3),
    }
    every = AllPaths(supernet)
    around = IdentityMapping(space, supernet)
    around.to(device, memory_format=image_layout(device)).phi = 1.0
    trained = nn.ModuleList([supernet, around])
    optimisers["both"] = make_optimiser(trained, "sgd", lr=1e-3, weight_decay=3e-5)
    paths = relaxation.ordered(1.0, torch.Generator().manual_seed(0))

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

    def weight_update(index: Architecture = arch, added: Any = None) -> None:
        optimisers["both"].zero_grad(set_to_none=True)
        loss(supernet(x, path=Path(index, None, added))).backward()
        nn.utils.clip_grad_norm_([p for p in trained.parameters() if p.grad is not None], 5.0)
        optimisers["both"].step()

    def architecture_update(added: Any = None) -> None:
        trained.requires_grad_(False)
        optimisers["logits"].zero_grad(set_to_none=True)
        loss(supernet(x, path=Path(arch, gates(), added))).backward()
        balance(relaxation, [budget], [budget.limit])
        optimisers["logits"].step()
        hold(relaxation, [budget], [budget.limit])
        trained.requires_grad_(True)

    def surgenas() -> None:
        """As `SurgeNAS._epoch`: gates cut off from the logits, K backward passes, both optimisers."""
        optimisers["both"].zero_grad(set_to_none=True)
        optimisers["logits"].zero_grad(set_to_none=True)
        drawn, slopes = relaxation.ordered(1.0, torch.Generator().manual_seed(0)), []
        for path in drawn:
            cut = tuple(gate.detach().requires_grad_() for gate in path.gates or ())
            loss(supernet(x, path=Path(path.index, cut, around))).backward()
            slopes += [torch.zeros_like(g) if g.grad is None else g.grad for g in cut]
        nn.utils.clip_grad_norm_([p for p in trained.parameters() if p.grad is not None], 5.0)
        optimisers["both"].step()
        torch.autograd.backward([gate for path in drawn for gate in path.gates or ()], slopes)
        optimisers["logits"].step()

    def one_by_one() -> None:
        for path in paths:
            weight_update(path.index, around)

    def held() -> None:
        sum(loss(supernet(x, path=Path(path.index, None, around))) for path in paths).backward()

    def all_paths() -> None:
        optimisers["weights"].zero_grad(set_to_none=True)
        loss(every(x, relaxation.probabilities())).backward()
        optimisers["weights"].step()

    steps = {
        "stand-alone": stand_alone,
        "weight update": weight_update,
        "architecture update": architecture_update,
        "weight update, identity": lambda: weight_update(arch, around),
        "architecture update, identity": lambda: architecture_update(around),
        "SurgeNAS step": surgenas,
        "its paths one by one": one_by_one,
        "its paths held at once": held,
        "all paths": all_paths,
    }
    own = [trained, alone, relaxation]
    memory = {name: peak(step, own) for name, step in steps.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(setting["rounds"] + 1):
        for name, step in steps.items():
            if name in RARELY and round_ > setting["all_paths_rounds"]:
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


def peak(step: Callable[[], None], own: Sequence[nn.Module]) -> float:
    """Most MB of tensors kept for a backward pass at any moment of a step; parameters and buffers of `own` apart."""
    apart = {t.untyped_storage().data_ptr() for m in own for t in (*m.parameters(), *m.buffers())}
    kept: Counter[int] = Counter()
    now = most = 0

    class Held:
        """A saved tensor for as long as a graph holds it."""

        def __init__(self, tensor: Tensor) -> None:
            nonlocal now, most
            self.tensor, storage = tensor, tensor.untyped_storage()
            self.at, self.bytes = storage.data_ptr(), storage.nbytes()
            if self.at not in apart:
                now += 0 if kept[self.at] else self.bytes
                kept[self.at] += 1
                most = max(most, now)

        def __del__(self) -> None:
            nonlocal now
            if self.at not in apart:
                kept[self.at] -= 1
                now -= 0 if kept[self.at] else self.bytes

    with torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.tensor):
        step()
    return most / 1e6


if __name__ == "__main__":
    main()
