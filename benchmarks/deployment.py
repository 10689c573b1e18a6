"""As trained, fused, int8: latency, size and accuracy of four networks on this CPU.

Must show (issue Beyond the classifier, 2). CIFAR-10 (JPEG): MobileNetV2, ResNet-18, the network that LightNAS found at
.309 ms (accuracy.json), and what Domino found of MobileNetV2 at 2.2 times its speed (domino.json), which begins with
the weights of the MobileNetV2 of the same seed and is collapsed when it is fused.

    as trained    batch norms by themselves, grafts open
    fused         norms folded into convolutions, grafts collapsed: what sartor measures and exports
    int8          the same, quantised by ONNX Runtime, ranges from 512 training images

Latency: ONNX Runtime (which folds norms itself) and uncompiled PyTorch (which does not and has no int8), each in one
sitting, one thread, one image; wants a quiet machine. Size: of the ONNX file. Accuracy: on all test images, of each
form by its own runtime, three seeds; differences are in pairs of one seed.

Reduced: 20 px, half the width (ResNet-18 a quarter), 20,000 images. Full: 32 px, all, on a GPU. Floor: MobileNetV2 as
trained.

    python benchmarks/deployment.py [--full] [--stage NAME] [--seed S ...] [--network NAME ...]
"""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import bench
import networks
import sartor
from common import RESULTS, interval, parser
from sartor import workflow
from sartor.core import Architecture
from sartor.runs import Run, read_json
from sartor.spaces.grafts import Grafts
from sartor.spaces.unfolded import Unfolded
from sartor.training.loop import train
from sartor.training.recipe import Recipe

SEEDS, STAGES = (0, 1, 2), ("latency", "train")
NETWORKS, FASTER = ("mobilenet_v2", "resnet18", "lightnet", "domino"), 1  # of Domino's budgets
FORMS = ("as trained", "fused", "int8")
REDUCED: dict[str, Any] = {
    "width": {"mobilenet_v2": 0.5, "resnet18": 0.25, "lightnet": 0.5, "domino": 0.5},
    "resolution": 20,
    "data": "parquet:{data}/cifar10?images=20000&resolution=20",
    "base": {"epochs": 15, "batch_size": 64, "lr": 0.05, "evaluate_every": 0},
    "recipe": {"epochs": 7, "batch_size": 64, "lr": 0.02, "evaluate_every": 0},
    "floor": 60.0,
}
FULL: dict[str, Any] = {
    "width": {"mobilenet_v2": 1.0, "resnet18": 1.0, "lightnet": 0.5, "domino": 1.0},
    "resolution": 32,
    "data": "parquet:{data}/cifar10",
    "base": {"epochs": 16, "batch_size": 256, "lr": 0.2, "evaluate_every": 0},
    "recipe": {"epochs": 8, "batch_size": 256, "lr": 0.05, "evaluate_every": 0},
    "floor": 90.0,
}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--stage", choices=STAGES, action="append", help="default all")
    options.add_argument("--seed", type=int, choices=SEEDS, action="append", help="default all")
    options.add_argument("--network", choices=NETWORKS, action="append", help="of the trainings, default all")
    given = options.parse_args()
    own = Bench(FULL if given.full else REDUCED, f"deployment{'_full' if given.full else ''}")
    for stage in given.stage or STAGES:
        if stage == "latency":
            for runtime in ("onnxruntime", "torch"):
                own.results.row({"what": stage, "runtime": runtime}, partial(own.latency, runtime))
            continue
        for seed in given.seed or SEEDS:
            for name in given.network or NETWORKS:
                own.results.row({"what": stage, "network": name, "seed": seed}, partial(own.trained, name, seed))
    own.results.summarise(**summary(own.results.data["rows"], own.setting["floor"]))


class Bench(bench.Bench):
    """The networks, each a space of grafts, so that all are measured in one sitting."""

    def __init__(self, setting: dict[str, Any], name: str) -> None:
        super().__init__(setting, name, "what folding and 8 bits are worth, and cost", SEEDS)

    def member(self, name: str, seed: int, *, trained: bool) -> tuple[Grafts, Architecture]:
        function = "mobilenet_v2" if name == "domino" else name
        model = f"networks.py:{function}?width={self.setting['width'][name]}"
        weights = os.path.relpath(self.weights(function, seed)) if trained else None
        space = Grafts(model, resolution=self.setting["resolution"], weights=weights)
        return space, self.chosen(seed) if name == "domino" else space.unchanged

    def chosen(self, seed: int) -> Architecture:
        """What Domino found in the benchmark of its own, whose networks are the same."""
        (row,) = (
            r for r in read_json(RESULTS / "domino.json")["rows"] if r["cell"] == {"what": "choose", "seed": seed}
        )
        return tuple(row["domino"][FASTER])

    def weights(self, name: str, seed: int) -> Path:
        return self.files / f"{name}-{seed}.safetensors"

    def latency(self, runtime: str) -> dict[str, Any]:
        """Milliseconds of each form, and bytes of its file; of Domino's networks that of the first seed."""
        members = [self.member(name, SEEDS[0], trained=False) for name in NETWORKS]
        forms = {"as trained": "", "fused": "", **({"int8": "&precision=int8"} if runtime == "onnxruntime" else {})}
        out: dict[str, Any] = {}
        for form, query in forms.items():
            target = sartor.targets.get(f"{runtime}:cpu?threads=1{query}")
            mine: list[Any] = members
            if form == "as trained":
                mine = [(Unfolded(space), arch) for space, arch in members]
            out[form] = dict(zip(NETWORKS, self.times(mine, f"{runtime} {form}", target)))
        return out

    def trained(self, name: str, seed: int) -> dict[str, Any]:
        """A network as it is trained, fused, and quantised."""
        from safetensors.torch import save_file

        grafted = name == "domino"
        if grafted and not self.weights("mobilenet_v2", seed).exists():
            raise SystemExit(f"train mobilenet_v2 of seed {seed} first.")
        recipe = Recipe().override(self.setting["recipe" if grafted else "base"])
        with Run(self.files / "runs" / f"{name}-{seed}", {"benchmark": "deployment", "of": name}, seed) as run:
            torch.manual_seed(run.torch_seed("weights"))
            if grafted:
                space, arch = self.member(name, seed, trained=True)
                network = space.tuned(arch)
            else:
                network = getattr(networks, name)(self.setting["width"][name])
            found = train(network, self.task, recipe, run.stage("train"))
        if not grafted:
            state = {key: value.cpu().contiguous() for key, value in network.state_dict().items()}
            save_file(state, self.weights(name, seed))
            space, arch = self.member(name, seed, trained=True)
            network = space.tuned(arch)
        with tempfile.TemporaryDirectory() as scratch:
            told = workflow.export_network(
                space.deploy(network.cpu()), space.inputs(1, arch), Path(scratch), ["onnx", "int8"], {}, self.task
            )
        return {
            "accuracy": {"as trained": found["value"], "fused": told["value"], "int8": told["value_int8"]},
            "bytes": {"fused": told["files"]["onnx"]["bytes"], "int8": told["files"]["int8"]["bytes"]},
            "params": found["params"],
        }


def summary(rows: list[dict[str, Any]], floor: float) -> dict[str, Any]:
    """A line per network and form."""
    latency = {row["cell"]["runtime"]: row for row in rows if row["cell"]["what"] == "latency"}
    trained = {(c["network"], c["seed"]): row for row in rows if (c := row["cell"])["what"] == "train"}
    lines = []
    for name in NETWORKS:
        mine = [row for (of, _), row in trained.items() if of == name]
        for form in FORMS:
            line: dict[str, Any] = {"network": name, "form": form}
            for runtime, row in latency.items():
                line[f"{runtime} (ms)"] = row.get(form, {}).get(name)
            if mine:
                line["seeds"] = len(mine)
                if form in mine[0]["bytes"]:
                    line["kB"] = float(np.mean([row["bytes"][form] for row in mine])) / 1e3
                line["accuracy"] = interval([row["accuracy"][form] for row in mine])
                apart = [row["accuracy"][form] - row["accuracy"]["as trained"] for row in mine]
                line["less as trained"] = interval(apart) if form != "as trained" else None
            lines.append(line)
    base = [row["accuracy"]["as trained"] for (of, _), row in trained.items() if of == "mobilenet_v2"]
    return {"rows": lines, "floor reached": min(base) >= floor if base else None}


if __name__ == "__main__":
    main()
