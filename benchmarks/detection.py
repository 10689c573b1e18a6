"""Finding things: LightNets as backbones of SSDLite beside MobileNetV2 and its narrower forms.

Must show (issue Beyond the classifier, 1; thesis, Table 4.4). The pictures are made here: one to three items of
Fashion-MNIST, by their own brightness, at random places and sizes on enlarged images of CIFAR-10 (JPEG); boxes are
where an item's pixels are. Backbones are those of accuracy.json, found or chosen for classification: what LightNAS
found with three limits, and the MobileNetV2-like network of the width that takes as long; and that of full width.

Whole detectors are measured in one sitting, which wants a quiet machine; trained with one recipe, and graded by COCO's
average precision on canvases of their own. Pairs are of one limit and seed.

Reduced: 48 px, 2,000 canvases, half the width. Full: 96 px, 20,000, width 1, on a GPU. Floor: MobileNetV2, unscaled.

    python benchmarks/detection.py [--full] [--stage NAME] [--seed S ...] [--network NAME ...]
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import bench
import sartor
from common import CACHE, RESULTS, interval, parser
from sartor.core import Architecture, SearchSpace
from sartor.data.vision import resize
from sartor.runs import read_json
from sartor.spaces.detectors import Detectors
from sartor.spaces.mobilenet import OPERATORS

SEEDS, STAGES = (0, 1, 2), ("sitting", "train")
ITEMS, BRIGHT, OVERLAP = (1, 3), 40, 0.1  # on a canvas; pixels that are of an item; of boxes, at most
REDUCED: dict[str, Any] = {
    "space": "mobilenet:cifar?width=0.5&resolution=48",
    "edge": 48,
    "sides": [16, 30],
    "canvases": [2000, 1000],
    "recipe": {"epochs": 12, "batch_size": 32, "lr": 0.03, "evaluate_every": 0},
    "floor": 25.0,
}
FULL: dict[str, Any] = {
    "space": "mobilenet:cifar?resolution=96",
    "edge": 96,
    "sides": [20, 60],
    "canvases": [20000, 2000],
    "recipe": {"epochs": 60, "batch_size": 64, "lr": 0.05, "evaluate_every": 0},
    "floor": 50.0,
}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--stage", choices=STAGES, action="append", help="default all")
    options.add_argument("--seed", type=int, choices=SEEDS, action="append", help="default all")
    options.add_argument("--network", action="append", help="of the trainings, such as 'lightnet 0.19', default all")
    given = options.parse_args()
    own = Bench(FULL if given.full else REDUCED, f"detection{'_full' if given.full else ''}")
    for stage in given.stage or STAGES:
        if stage == "sitting":
            own.results.row({"what": stage}, own.sitting)
            continue
        for seed in given.seed or SEEDS:
            for name in own.members(seed):
                if name in (given.network or [name]):
                    cell = {"what": stage, "network": name, "seed": seed}
                    own.results.row(cell, partial(own.trained, name, seed))
    own.results.summarise(**summary(own.results.data["rows"], own.setting["floor"]))


class Bench(bench.Bench):
    """The canvases, and the detectors."""

    def __init__(self, setting: dict[str, Any], name: str) -> None:
        folder = CACHE / name / "canvases"
        if not (folder / "annotations" / "instances_val.json").exists():
            make(folder, bench.DATA, setting)
        goal = "LightNets ahead of MobileNetV2 of the same latency as backbones"
        super().__init__(setting, name, goal, SEEDS, data=f"coco:{folder}?resolution={setting['edge']}")
        self.found = read_json(RESULTS / "accuracy.json")["rows"]

    def members(self, seed: int) -> dict[str, tuple[SearchSpace, Architecture]]:
        """Detectors by name. Widths are of the same networks for all seeds."""
        space: Any = sartor.spaces.get(self.setting["space"])
        usual = (OPERATORS.index("k3e6"),) * len(space.slots)
        out: dict[str, tuple[SearchSpace, Architecture]] = {}
        rows = [r for r in self.found if r["cell"]["what"] == "one sitting" and r["cell"]["seed"] == seed]
        for row in sorted(rows, key=lambda r: r["cell"]["limit_ms"]):
            limit, share = row["cell"]["limit_ms"], round(0.15 * 1.05 ** row["width"]["architecture"][0], 3) / 0.5
            out[f"lightnet {limit}"] = (space, tuple(row["lightnas"]["architecture"]))
            out[f"width {limit}"] = (space.scaled(share), usual)
        out["mobilenetv2"] = (space, usual)
        return {name: (Detectors(of, self.task.classes), arch) for name, (of, arch) in out.items()}

    def sitting(self) -> dict[str, Any]:
        """Milliseconds of whole detectors by seed and name."""
        every = {(seed, name): member for seed in SEEDS for name, member in self.members(seed).items()}
        out: dict[str, dict[str, float | None]] = {}
        for (seed, name), ms in zip(every, self.times(list(every.values()), "detectors")):
            out.setdefault(str(seed), {})[name] = ms
        return {"latency_ms": out}

    def trained(self, name: str, seed: int) -> dict[str, Any]:
        found = self.train(*self.members(seed)[name], seed)
        return {"ap": found["value"], "macs": found["macs"], "params": found["params"]}


# ---------------------------------------------------------------------- canvases


def make(folder: Path, root: Path, setting: dict[str, Any]) -> None:
    """Training and test canvases, of the training and test images of both data sets, in COCO's format."""
    items: Any = sartor.tasks.get(f"fashion-mnist:{root}/fashion_mnist").data  # type: ignore[union-attr]
    behind: Any = sartor.tasks.get(f"parquet:{root}/cifar10").data  # type: ignore[union-attr]
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    for word, count in zip(("train", "val"), setting["canvases"]):
        part = "train" if word == "train" else "test"
        rng = np.random.default_rng([0, word == "val"])
        told = _canvases(folder / word, getattr(items, part), getattr(behind, part), rng, count, setting)
        (folder / "annotations" / f"instances_{word}.json").write_text(json.dumps(told))


def _canvases(
    place: Path, items: Any, behind: Any, rng: np.random.Generator, count: int, setting: dict[str, Any]
) -> dict[str, Any]:
    from PIL import Image

    place.mkdir(exist_ok=True)
    edge, (least, most) = setting["edge"], setting["sides"]
    images, boxes = [], []
    for i in range(count):
        picked = behind.images[int(rng.integers(len(behind)))][None]
        canvas = resize(picked, edge)[0].float()
        placed: list[tuple[float, float, float, float]] = []
        for _ in range(int(rng.integers(ITEMS[0], ITEMS[1] + 1))):
            k, side = int(rng.integers(len(items))), int(rng.integers(least, most + 1))
            item = resize(items.images[k][None], side)[0, 0].float()
            x, y = (int(rng.integers(0, edge - side + 1)) for _ in range(2))
            rows, columns = (torch.nonzero((item > BRIGHT).any(dim)).flatten() for dim in (1, 0))
            if len(rows) == 0:
                continue
            box = (x + int(columns[0]), y + int(rows[0]), x + int(columns[-1]) + 1, y + int(rows[-1]) + 1)
            if any(_overlap(box, other) > OVERLAP for other in placed):
                continue
            placed.append(box)
            part, share = canvas[:, y : y + side, x : x + side], item / 255
            part.copy_((1 - share) * part + share * 255)
            corner, size = [box[0], box[1]], [box[2] - box[0], box[3] - box[1]]
            boxes.append({"id": len(boxes), "image_id": i, "category_id": int(items.labels[k]), "bbox": corner + size})
        name = f"{i}.png"
        Image.fromarray(canvas.round().byte().permute(1, 2, 0).numpy()).save(place / name)
        images.append({"id": i, "file_name": name, "width": edge, "height": edge})
    kinds = [{"id": k, "name": f"item {k}"} for k in range(10)]
    return {"images": images, "annotations": boxes, "categories": kinds}


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Intersection over union."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


# ---------------------------------------------------------------------- summary


def summary(rows: list[dict[str, Any]], floor: float) -> dict[str, Any]:
    """A line per network, and pairs of one limit and seed."""
    sitting = next((row["latency_ms"] for row in rows if row["cell"]["what"] == "sitting"), {})
    ap = {(c["network"], c["seed"]): row for row in rows if (c := row["cell"])["what"] == "train"}
    lines = []
    for name in dict.fromkeys(network for network, _ in ap):
        mine = {seed: row for (network, seed), row in ap.items() if network == name}
        times = [sitting[str(seed)][name] for seed in mine if str(seed) in sitting]
        lines.append(
            {
                "network": name,
                "seeds": len(mine),
                "AP (%)": interval([row["ap"] for row in mine.values()]),
                "detector (ms)": float(np.mean(times)) if times else None,
                "MACs (M)": float(np.mean([row["macs"] for row in mine.values()])) / 1e6,
            }
        )
    pairs = []
    for limit in sorted({network.split()[1] for network, _ in ap if " " in network}):
        seeds = [s for (network, s) in ap if network == f"lightnet {limit}" and (f"width {limit}", s) in ap]
        apart = [ap[f"lightnet {limit}", s]["ap"] - ap[f"width {limit}", s]["ap"] for s in seeds]
        pairs.append({"limit": limit, "apart": apart})
    every = [value for pair in pairs for value in pair["apart"]]
    against = {str(p["limit"]): interval(p["apart"]) for p in pairs if len(p["apart"]) > 1}
    against |= {"all": interval(every)} if len(every) > 1 else {}
    base = [row["ap"] for (network, _), row in ap.items() if network == "mobilenetv2"]
    verdicts = {k: "better" if v["low"] > 0 else "worse" if v["high"] < 0 else "undecided" for k, v in against.items()}
    return {
        "rows": lines,
        "pairs": [{"limit": k, "LightNet less width (AP)": v, "verdict": verdicts[k]} for k, v in against.items()],
        "floor reached": min(base) >= floor if base else None,
    }


if __name__ == "__main__":
    main()
