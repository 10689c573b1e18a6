"""Accuracy of grafted networks from few that are trained on the whole task: predictors, and proxies a minute.

Must show (issue Domino, 4). MobileNetV2, candidates `keep` and `graft` as published. Random networks are trained from
scratch on all classes (the target) and, shorter, on three of the classes (the proxy, as in thesis 5.3.3). From the
proxy's pairs and ten of the target's, drawn anew 20 times, each way to learn predicts the other targets. Beside them
`direct` with twice as many of the target's, which cost as much as proxy and target together (thesis 5.3.3), and the
mean of the ten as what is said of every network.

Beside it, what orders the targets best a minute: the proxy as published, a short training that begins with the weights
of a base network, and one supernet of grafts that begins with them; base networks and gradings see `train` and `valid`.

    python benchmarks/meta.py [--part K --of N]    # several processes fill one file
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import networks
import sartor
from common import CACHE, Results, interval, parser
from sartor.core import F, UserError
from sartor.predictors.evaluate import quality
from sartor.quality.meta import WAYS, MetaAccuracy
from sartor.quality.supernet import SupernetScore, train_supernet
from sartor.quality.trained import TrainedScore
from sartor.runs import Run
from sartor.spaces import from_spec
from sartor.spaces.grafts import Grafts
from sartor.training.loop import train
from sartor.training.recipe import Recipe
from sartor.training.tasks import for_search, of_classes

SEED, SHOTS, DRAWS = 0, 10, 20
TWICE, MEAN = f"direct, {2 * SHOTS} pairs", f"the mean of the {SHOTS}, for all"
CLASSES = (1, 5, 8)  # automobile, dog, ship
REDUCED: dict[str, Any] = {
    "width": 0.5,
    "resolution": 20,
    "data": "parquet:{data}/cifar10?images=6250&resolution=20",
    "networks": 40,
    "target": {"epochs": 15, "batch_size": 64, "lr": 0.05},
    "proxy": {"epochs": 10, "batch_size": 64, "lr": 0.05},
    "tuned": {"epochs": 2, "batch_size": 64, "lr": 0.01},
    "supernet": {"epochs": 10, "batch_size": 64, "lr": 0.05},
}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--part", type=int, default=0, help="which part of the networks, from 0")
    options.add_argument("--of", type=int, default=1, help="how many parts there are")
    given = options.parse_args()
    setting = REDUCED
    torch.set_num_threads(1)
    root = os.environ.get("SARTOR_DATA", "../shared/data")
    task = sartor.tasks.get(setting["data"].format(data=root), "cuda" if torch.cuda.is_available() else "cpu")
    results = Results(
        "meta",
        "the meta-learned predictor beside direct, transfer and fine-tuning on real pairs, 10 shots, 20 draws",
        {**setting, "data_name": task.describe(), "seed": SEED, "classes": CLASSES, "shots": SHOTS, "draws": DRAWS},
    )
    file = CACHE / "meta" / "base.safetensors"
    make = partial(Grafts, f"networks.py:mobilenet_v2?width={setting['width']}", resolution=setting["resolution"])
    fresh = make(candidates=["keep", "graft"])
    archs = list(dict.fromkeys(fresh.sample(np.random.default_rng(SEED), setting["networks"])))
    view = for_search(task)
    few = of_classes(view, CLASSES)
    mine = archs[given.part :: given.of]
    if given.part == 0:
        results.row({"what": "base"}, lambda: base(setting, task, file))
    for arch in mine:
        for what, of in (("target", view), ("proxy", few)):
            score = TrainedScore(fresh, of, Recipe().override(setting[what]), seed=SEED)
            results.row({"what": what, "architecture": list(arch)}, partial(timed, score, arch))
    if not file.exists():
        raise SystemExit(f"{file} is missing: part 0 makes it.")
    tuned = make(candidates=["keep", "graft"], weights=os.path.relpath(file))
    for arch in mine:
        score = TrainedScore(tuned, view, Recipe().override(setting["tuned"]), start=tuned.tuned, seed=SEED)
        results.row({"what": "tuned", "architecture": list(arch)}, partial(timed, score, arch))
    if given.part == 0:
        results.row({"what": "supernet"}, lambda: supernet(setting, tuned, view, archs))
    results.summarise(**summary(results.data["rows"], fresh, archs))


def timed(score: Callable[..., Any], arch: tuple[int, ...]) -> dict[str, Any]:
    began = time.monotonic()
    return {"accuracy": float(score([arch])[0]), "seconds": time.monotonic() - began}


def base(setting: dict[str, Any], task: Any, file: Path) -> dict[str, Any]:
    from safetensors.torch import save_file

    with tempfile.TemporaryDirectory() as scratch, Run(Path(scratch), {"b": "meta"}, SEED) as run:
        torch.manual_seed(run.torch_seed("weights"))
        network: nn.Module = networks.mobilenet_v2(setting["width"])
        recipe = Recipe().override({**setting["target"], "evaluate_every": 0})
        found = train(network, task, recipe, run.stage("train"), split="train", evaluate="valid")
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.cpu().contiguous() for name, value in network.state_dict().items()}, file)
    return {"accuracy": found["value"], "seconds": found["seconds"]}


def supernet(setting: dict[str, Any], space: Grafts, view: Any, archs: list[tuple[int, ...]]) -> dict[str, Any]:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch, Run(Path(scratch), {"b": "meta"}, SEED) as run:
        made = train_supernet(space, view, run.stage("supernet"), **setting["supernet"])
        grades = SupernetScore(space, made, view)(archs)
    return {"grades": grades.tolist(), "seconds": time.monotonic() - began}


def summary(rows: list[dict[str, Any]], space: Grafts, archs: list[tuple[int, ...]]) -> dict[str, Any]:
    """How well each way predicts targets that it has not seen, and each proxy orders them."""
    of: dict[str, dict[tuple[int, ...], dict[str, Any]]] = {what: {} for what in ("target", "proxy", "tuned")}
    for row in rows:
        if row["cell"]["what"] in of:
            of[row["cell"]["what"]][tuple(row["cell"]["architecture"])] = row
    both = [arch for arch in archs if arch in of["target"] and arch in of["proxy"]]
    if len(both) < 3 * SHOTS:
        return {"rows": [], "networks": len(both)}
    target, proxy = (np.array([of[what][arch]["accuracy"] for arch in both]) for what in ("target", "proxy"))
    got: dict[str, list[dict[str, float]]] = {how: [] for how in (*WAYS, TWICE, MEAN)}
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(_draw, space.spec(), both, proxy, target, draw) for draw in range(DRAWS)]
        for job in jobs:
            for how, found in job.result().items():
                got[how].append(found)
    known = {row["cell"]["what"]: row for row in rows if row["cell"]["what"] in ("base", "supernet")}
    proxies = [
        {"proxy": "from scratch on 3 classes (published)", **order(proxy, target), "seconds": spent(of, "proxy")}
    ]
    tuned = [arch for arch in both if arch in of["tuned"]]
    if len(tuned) > 2 * SHOTS:
        said, true = (np.array([of[what][arch]["accuracy"] for arch in tuned]) for what in ("tuned", "target"))
        proxies.append({"proxy": "trained from the weights", **order(said, true), "seconds": spent(of, "tuned")})
    if "supernet" in known:
        grades = dict(zip(archs, known["supernet"]["grades"]))
        seconds = known["supernet"]["seconds"] / len(archs)
        said = np.array([grades[arch] for arch in both])
        proxies.append({"proxy": "supernet, its training shared by all", **order(said, target), "seconds": seconds})
    return {
        "networks": len(both),
        "target (%)": [float(target.min()), float(target.max()), float(target.std())],
        "rows": [
            {
                "way": how,
                "refused draws": sum(math.isnan(one["rmse"]) for one in some),
                **{key: interval(known) for key in ("rmse", "spearman") if (known := _told(some, key))},
            }
            for how, some in got.items()
        ],
        "against direct (rmse)": {
            how: interval([gap for a, b in zip(some, got["direct"]) if not math.isnan(gap := a["rmse"] - b["rmse"])])
            for how, some in got.items()
            if how != "direct"
        },
        "proxies": proxies,
    }


def _draw(spec: Any, both: list[Any], proxy: F, target: F, draw: int) -> dict[str, dict[str, float]]:
    """By each way to learn, errors and order on the targets that a draw leaves out."""
    torch.set_num_threads(1)
    space = from_spec(spec)
    drawn = np.random.default_rng([SEED, draw]).permutation(len(both))
    rest = drawn[2 * SHOTS :]
    same = float(target[drawn[:SHOTS]].mean())
    found = {MEAN: {"rmse": float(np.sqrt(np.mean((same - target[rest]) ** 2))), "spearman": math.nan}}
    for how in (*WAYS, TWICE):
        few = drawn[: 2 * SHOTS if how == TWICE else SHOTS]
        pairs = [both[i] for i in few], target[few]
        way: Any = "direct" if how == TWICE else how
        try:
            learnt = MetaAccuracy(space, (both, proxy), pairs, how=way, seed=draw)
        except UserError:  # `calibrated` refuses where the pairs contradict the proxy
            found[how] = {"rmse": math.nan, "spearman": math.nan}
            continue
        said = learnt([both[i] for i in rest])
        rmse = float(np.sqrt(np.mean((said - target[rest]) ** 2)))
        found[how] = {"rmse": rmse, "spearman": float(quality(said, target[rest])["spearman"])}
    return found


def _told(draws: list[dict[str, float]], key: str) -> list[float]:
    return [one[key] for one in draws if not math.isnan(one[key])]


def order(said: Any, true: Any) -> dict[str, Any]:
    rng = np.random.default_rng(SEED)
    again = [
        quality(said[d], true[d])["spearman"] for d in (rng.integers(len(true), size=len(true)) for _ in range(1000))
    ]
    low, high = np.nanquantile(again, [0.025, 0.975])
    return {"Spearman": {"mean": float(quality(said, true)["spearman"]), "low": float(low), "high": float(high)}}


def spent(of: Any, what: str) -> float:
    """Seconds a network, of those that the machine of the file trained."""
    return float(np.median([row["seconds"] for row in of[what].values() if "machine" not in row]))


if __name__ == "__main__":
    main()
