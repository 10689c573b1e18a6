"""Networks graded a minute: the evolution of LightNAS++ against the loop that one would write.

Must show (issue LightNAS++, 5), on the quickstart's task: channels of a `mobilenet:tiny` network on digits, 3 epochs.

naive: every network of the same search, in the same order, trained to the end with batches from a DataLoader over
PIL images and `loss.item()` in every step. ours: batches from tensors on the device, no waiting within an epoch, and
networks that cannot be among the kept any more are left; in one process and in two. Ratios within one sitting, in wall
clock, on a quiet machine; which networks are found must be the same, floor or not.

    python benchmarks/proxy_speed.py
"""

from __future__ import annotations

import tempfile
import time
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

import sartor
from common import Results, parser
from sartor.core import Budget
from sartor.data.vision import import_torchvision
from sartor.quality.early import Schedule, bte
from sartor.runs import Run
from sartor.spaces.channels import Channels
from sartor.spaces.complexity import Complexity

ARCH, SEARCH = (0, 1, 6, 2, 3, 6, 4, 5, 0), {"iterations": 8, "batch_size": 64}


class Images(Dataset[Any]):
    """The batches' images as files would give them."""

    def __init__(self, task: Any, moments: tuple[float, float]) -> None:
        batches = list(task.batches("train", size=64, seed=0, epoch=0, plain=True))
        pixels = torch.cat([x for (x,), _ in batches])
        self.labels, (self.low, self.high) = torch.cat([y for _, y in batches]), moments
        import_torchvision()
        from torchvision.transforms import functional

        self.tensor = functional.to_tensor
        self.pictures = [functional.to_pil_image((x - self.low) / (self.high - self.low)) for x in pixels]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        image = self.tensor(self.pictures[i]) * (self.high - self.low) + self.low
        return image, int(self.labels[i])


def main() -> None:
    parser(__doc__).parse_args()
    torch.set_num_threads(1)
    space, task = Channels(sartor.spaces.get("mobilenet:tiny"), ARCH), sartor.tasks.get("digits")
    macs = Complexity(space, "macs")
    budget = Budget(macs, float(macs([space.unscaled])[0]))
    results = Results(
        "proxy_speed",
        "evaluations a minute against the naive loop; 400 on the quickstart task in minutes on 2 cores",
        {"space": space.spec(), "data_name": task.describe(), "search": SEARCH},
    )

    def searched(workers: int) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as scratch, Run(scratch, {"benchmark": "speed"}) as run:
            began = time.perf_counter()
            found = sartor.search("lightnas-channels", space, task, budget=budget, run=run, workers=workers, **SEARCH)
            seconds = time.perf_counter() - began
            journal = run.stage("search").journal()
        asked = list(dict.fromkeys(tuple(arch) for line in journal for arch in line["members"]))
        return {"seconds": seconds, "networks": [list(arch) for arch in asked], "found": list(found.architecture)}

    def naive(archs: list[list[int]]) -> dict[str, Any]:
        ((x,), _) = next(iter(task.batches("train", size=64, seed=0, epoch=0, plain=True)))
        images = Images(task, (float(x.min()), float(x.max())))
        began, scores, plan = time.perf_counter(), [], Schedule()
        for arch in archs:
            torch.manual_seed(0)
            network = space.network(tuple(arch)).train()
            optimiser = torch.optim.SGD(
                network.parameters(), plan.lr, plan.momentum, weight_decay=plan.weight_decay, nesterov=True
            )
            rows = []
            for _ in range(plan.epochs):
                rows.append([])
                for inputs, labels in DataLoader(images, 64, shuffle=False, drop_last=True):
                    loss = torch.nn.functional.cross_entropy(network(inputs), labels)
                    optimiser.zero_grad()
                    loss.backward()
                    optimiser.step()
                    rows[-1].append(loss.item())
            scores.append(bte(np.array(rows), "clipped"))
        return {"seconds": time.perf_counter() - began, "networks": archs, "best": archs[int(np.argmax(scores))]}

    one = results.row({"loop": "ours", "processes": 1}, lambda: searched(1))
    two = results.row({"loop": "ours", "processes": 2}, lambda: searched(2))
    plain = results.row({"loop": "naive", "processes": 1}, lambda: naive(one["networks"][::4]))
    speed = {
        name: 60 * len(row["networks"]) / row["seconds"]
        for name, row in (("naive", plain), ("ours", one), ("ours, two processes", two))
    }
    results.summarise(
        rows=[
            {"loop": name, "networks a minute": each, "times the naive loop": each / speed["naive"]}
            for name, each in speed.items()
        ],
        minutes_for_400=400 / speed["ours, two processes"],
    )


if __name__ == "__main__":
    main()
