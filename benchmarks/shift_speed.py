"""Networks visited a minute, shift included: Supernet Shifting against the loop that rebuilds its loaders.

Must show (issue Supernet Shifting, 6). The ShuffleNetV2 space on CIFAR-10 (JPEG). A visit is a shift on 640 images in
batches of 32, norms calibrated on 1,024, and a grade on 1,024.

    naive    for each network, as the public code does: a new DataLoader over JPEG files for the shift and one for the
             grade, `loss.item()` in each step, a grade with gradients. Without and with two worker processes
    ours     `Shifting.visit`: batches from tensors on the device

The same networks in the same order, the loops in turn, three rounds of them, in wall clock, on a quiet machine.
Reduced: width 0.5, 16 pixels, 10,000 images. Full: as the `cifar` preset, on a GPU.

    python benchmarks/shift_speed.py [--full]
"""

from __future__ import annotations

import io
import os
import tempfile
import time
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

import sartor
from common import Results, interval, parser
from sartor.core import Path as Route
from sartor.core.memory import image_layout
from sartor.data.vision import import_torchvision
from sartor.methods.supernet_shifting import Shifting, SupernetShifting
from sartor.quality.supernet import SupernetScore
from sartor.runs import Run
from sartor.supernet import recalibrated

VISITS, ROUNDS = 12, 3
REDUCED: dict[str, Any] = {"space": "shufflenet:cifar?width=0.5&resolution=16", "images": 10000, "resolution": 16}
FULL: dict[str, Any] = {"space": "shufflenet:cifar", "images": 50000, "resolution": 32}


class Files(Dataset[Any]):
    """JPEG files, decoded and augmented when they are asked for."""

    def __init__(self, file: str, count: int, resolution: int, train: bool) -> None:
        table = pq.read_table(file).slice(0, count)
        self.data, self.labels = table["jpeg"].to_pylist(), table["label"].to_pylist()
        import_torchvision()
        from torchvision import transforms

        augment = [transforms.RandomCrop(resolution, padding=2), transforms.RandomHorizontalFlip()] if train else []
        self.transform = transforms.Compose(
            [
                transforms.Resize(resolution),
                *augment,
                transforms.ToTensor(),
                transforms.Normalize((0.49, 0.48, 0.45), (0.25, 0.24, 0.26)),
            ]
        )

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        from PIL import Image

        return self.transform(Image.open(io.BytesIO(self.data[i])).convert("RGB")), int(self.labels[i])


def main() -> None:
    given = parser(__doc__).parse_args()
    setting = FULL if given.full else REDUCED
    torch.set_num_threads(1)
    root, device = os.environ.get("SARTOR_DATA", "../shared/data"), "cuda" if torch.cuda.is_available() else "cpu"
    options = f"images={setting['images']}&resolution={setting['resolution']}"
    task = sartor.tasks.get(f"parquet:{root}/cifar10?{options}", device)
    space = sartor.spaces.get(setting["space"])
    results = Results(
        f"shift_speed{'_full' if given.full else ''}",
        "networks a minute, shift included, above the loop that rebuilds its loaders",
        {**setting, "data_name": task.describe(), "visits": VISITS, "rounds": ROUNDS, "device": device},
    )

    def fresh() -> Any:
        torch.manual_seed(0)
        return space.supernet().to(device, memory_format=image_layout(device))  # type: ignore[attr-defined]

    with tempfile.TemporaryDirectory() as scratch, Run(Path(scratch) / "run", {"of": "shift_speed"}, 0) as run:
        archs = space.sample(run.rng("visited"), VISITS + 1)

        def ours() -> dict[str, Any]:
            supernet = fresh()
            score = SupernetScore(space, supernet, task, limit=2)
            shifting = Shifting(supernet, score, task, SupernetShifting(per="architecture", shift_lr=1e-4), run, 0)
            shifting.visit(archs[0], 0, VISITS, False)
            began = time.perf_counter()
            for i, arch in enumerate(archs[1:], 1):
                shifting.visit(arch, i, VISITS, False)
            return {"seconds": time.perf_counter() - began}

        def naive(workers: int) -> dict[str, Any]:
            supernet = fresh()
            w = torch.optim.SGD(supernet.parameters(), lr=1e-4, momentum=0.9, weight_decay=4e-5)
            size = setting["images"], setting["resolution"]
            train = Files(f"{root}/cifar10_train.parquet", *size, train=True)
            plain = Files(f"{root}/cifar10_train.parquet", *size, train=False)
            began = 0.0
            for i, arch in enumerate(archs):
                began = time.perf_counter() if i == 1 else began  # the first is not counted
                net = partial(supernet, path=Route(arch))
                supernet.train()
                for x, y in islice(DataLoader(train, 32, shuffle=True, num_workers=workers), 20):
                    loss = functional.cross_entropy(net(x.to(device)), y.to(device))
                    w.zero_grad()
                    loss.backward()
                    w.step()
                    loss.item()
                again = islice(DataLoader(train, 256, shuffle=True, num_workers=workers), 4)
                with recalibrated(supernet, ((x.to(device),) for x, _ in again), path=Route(arch)):
                    right = 0
                    for x, y in islice(DataLoader(plain, 256, num_workers=workers), 4):
                        right += (net(x.to(device)).argmax(1) == y.to(device)).sum().item()
            return {"seconds": time.perf_counter() - began}

        loops = {"ours": ours, **{f"naive, {workers} workers": partial(naive, workers) for workers in (0, 2)}}
        seconds: dict[str, list[float]] = {name: [] for name in loops}
        for i in range(ROUNDS):
            for name, loop in loops.items():
                seconds[name].append(results.row({"loop": name, "round": i}, loop)["seconds"])
    results.summarise(
        rows=[
            {
                "loop": name,
                "networks a minute": interval([60 * VISITS / each for each in taken]),
                "ours / this": interval([each / best for each, best in zip(taken, seconds["ours"])]),
            }
            for name, taken in seconds.items()
        ]
    )


if __name__ == "__main__":
    main()
