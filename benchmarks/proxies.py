"""What early training and untrained networks tell of the accuracy after 200 epochs, on NAS-Bench-201.

Must show (issue LightNAS++, 2). Random networks, each initialised once and trained for 7 epochs on the same unshuffled,
unaugmented batches of CIFAR-10 (a lossy JPEG copy); all losses are kept, so that every estimator is computed from the
same trainings: BTE as published and clipped, TSE, TSE-E, TSE-EMA after 2, 3, 5 and 7 epochs, and `relative`, the mean
over batches of log(first loss / last loss). Beside them accuracy and loss on `valid` after as many epochs, the
training-free proxies, MACs and parameters. Truth: the table's test accuracy after 200 epochs, which no estimator sees.
Intervals are of resampled networks.

A variant may be chosen by the first half of the networks, in the order in which they were drawn, and is judged by the
second. `vote` (jacob-cov and synflow, each by its normal score among the networks) was chosen like that, among sums of
two or three of all that is here.

Search (must show 6, thesis Fig. 4.11): 10 runs of 40 random networks within 35 and 45 ms on the Raspberry Pi 4; the
best by each proxy, and its test accuracy. Draws are from the networks above, without replacement within a run.

Reduced: 16 px, 2,048 images, 100 networks. Longer: the same networks, 3 epochs of 10,240 images, because an epoch of
the thesis is a pass over all images. Full: all training images, 32 px, 3 epochs, as many as fit of the first 200
(published: 1,004 networks).

    python benchmarks/proxies.py [--longer | --full] [--part K --of N]    # several processes fill one file
    python benchmarks/proxies.py figure     # docs/img/proxies.svg: tau against seconds a network
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.ticker import NullFormatter

import sartor
from common import RESULTS, Results, interval, parser
from sartor import tables
from sartor.core import F
from sartor.predictors.evaluate import quality
from sartor.quality.early import Schedule, bte, early_losses, neg_fraction, tse, tse_ema
from sartor.quality.estimate import NormalScores
from sartor.quality.proxies import PROXIES, ProxyScore
from sartor.report.style import CYCLE, MUTED, canvas, quiet, styled
from sartor.runs import read_json
from sartor.spaces.complexity import Complexity
from sartor.training.tasks import for_search

TEST, PI4 = "cifar10_test_acc_200ep", "hwnb_raspi4_latency_ms"
AFTER, RESAMPLED, SEED = (2, 3, 5, 7), 1000, 0
LIMITS_MS, DRAWS, RUNS = (35.0, 45.0), 40, 10
UNTRAINED = ("synflow", "snip", "grad-norm", "jacob-cov", "naswot", "zen")
COUNTED = ("macs", "params")
VOTE = PROXIES["vote"].members
REDUCED = {
    "space": "nas-bench-201?resolution=16",
    "images": 2048,
    "resolution": 16,
    "batch": 64,
    "networks": 100,
    "epochs": 7,
}
LONGER = {**REDUCED, "images": 10240, "epochs": 3}
FULL = {"space": "nas-bench-201", "images": None, "resolution": 32, "batch": 256, "networks": 200, "epochs": 3}


def relative(losses: F) -> float:
    return float(np.log(np.maximum(losses[0], 1e-12) / np.maximum(losses[-1], 1e-12)).mean())


SHOWN = ("BTE", "BTE, clipped", "TSE", "TSE-E", "relative", "synflow", "jacob-cov", "naswot", "zen", "vote")
LEARNED: dict[str, Callable[[F], float]] = {
    "BTE": bte,
    "BTE, clipped": partial(bte, mode="clipped"),
    "TSE": tse,
    "TSE-E": partial(tse, last=1),
    "TSE-EMA": tse_ema,
    "relative": relative,
}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("what", nargs="?", default="measure", choices=["measure", "figure"])
    options.add_argument("--longer", action="store_true", help="fewer epochs of more images")
    options.add_argument("--part", type=int, default=0, help="which part of the networks, from 0")
    options.add_argument("--of", type=int, default=1, help="how many parts there are")
    given = options.parse_args()
    setting: dict[str, Any] = FULL if given.full else LONGER if given.longer else REDUCED
    if given.what == "figure":
        out = Path(__file__).parent.parent / "docs" / "img" / "proxies.svg"
        files = [RESULTS / f"proxies{suffix}.json" for suffix in ("", "_longer", "_full")]
        drawn([read_json(file) for file in files if file.exists()]).savefig(out, facecolor="white")
        return
    torch.set_num_threads(1)
    root = os.environ.get("SARTOR_DATA", "../shared/data")
    table = tables.load("nas-bench-201", f"{root}/nas_bench_201.parquet")
    space: Any = sartor.spaces.get(setting["space"])
    # of the training images a fifth is `valid`
    some = "" if setting["images"] is None else f"&images={setting['images'] * 5 // 4}"
    data = f"parquet:{root}/cifar10?resolution={setting['resolution']}{some}"
    task = for_search(sartor.tasks.get(data, "cuda" if torch.cuda.is_available() else "cpu"))
    results = Results(
        f"proxies{'_full' if given.full else '_longer' if given.longer else ''}",
        "a proxy of at most 3 epochs whose tau is above TSE and every training-free proxy, on the same networks",
        {**setting, "data_name": task.describe(), "schedule": str(Schedule()), "seed": SEED},
    )
    archs = list(dict.fromkeys(table.space.sample(np.random.default_rng(SEED), 2 * setting["networks"])))
    archs = archs[: setting["networks"]]
    truth, ms = (dict(zip(archs, table.score(column)(archs))) for column in (TEST, PI4))
    for arch in archs[given.part :: given.of]:
        results.row(
            {"architecture": list(arch)},
            lambda a=arch: {"test": float(truth[a]), "pi4_ms": float(ms[a]), **asked(space, task, a, setting)},
        )
    results.summarise(**summary(results.data["rows"], archs))


def asked(space: Any, task: Any, arch: tuple[int, ...], setting: dict[str, Any]) -> dict[str, Any]:
    """Everything that can be known of one network."""
    batch, epochs = setting["batch"], setting["epochs"]
    batches = partial(task.batches, "train", size=batch, seed=0, limit=task.length("train") // batch, plain=True)
    torch.manual_seed(SEED)
    network = space.network(arch).to(task.device)
    valid: list[dict[str, float]] = []
    grading = 0.0

    def grade() -> None:
        nonlocal grading
        began = time.process_time()
        network.eval()
        valid.append(dict(task.evaluate(network, "valid")))
        network.train()
        grading += time.process_time() - began

    def epoch_of(epoch: int) -> Any:
        if epoch:
            grade()
        return batches(epoch=epoch)

    began = time.process_time()
    losses = early_losses(network, task.loss, epoch_of, Schedule(epochs=epochs))
    spent = (time.process_time() - began - grading) / epochs
    grade()
    told, seconds = {}, {}
    for name in UNTRAINED:
        score = ProxyScore(space, task, name, batch_size=batch, seed=SEED)
        (value,) = score([arch])
        told[name], seconds[name] = (float(value) if np.isfinite(value) else None), score.seconds[arch]
    return {
        "losses": losses.round(6).tolist(),
        "valid": valid,
        "epoch_seconds": spent,
        "untrained": told,
        "untrained_seconds": seconds,
        **{name: float(Complexity(space, name)([arch])[0]) for name in COUNTED},
    }


def summary(rows: list[dict[str, Any]], archs: list[tuple[int, ...]]) -> dict[str, Any]:
    """Correlations of every estimator, over all networks and over either half of those that were drawn."""
    place = {arch: i for i, arch in enumerate(archs)}
    rows = sorted(rows, key=lambda row: place[tuple(row["cell"]["architecture"])])
    first = np.arange(len(rows)) < len(rows) // 2
    halves = np.flatnonzero(first), np.flatnonzero(~first)
    if min(map(len, halves)) < 4:
        return {"rows": [{"networks": len(rows)}]}
    truth = np.array([row["test"] for row in rows])
    epoch = float(np.median([row["epoch_seconds"] for row in rows]))
    said: list[tuple[str, int, float, F]] = []
    after = [epochs for epochs in AFTER if epochs <= min(len(row["losses"]) for row in rows)]
    for name, tells in LEARNED.items():
        for epochs in after:
            values = np.array([tells(np.array(row["losses"], dtype=float)[:epochs]) for row in rows])
            said.append((name, epochs, epochs * epoch, values))
    for name, key, sign in (("valid accuracy", "accuracy", 1.0), ("valid loss", "loss", -1.0)):
        for epochs in after:
            values = np.array([sign * row["valid"][epochs - 1][key] for row in rows])
            said.append((name, epochs, epochs * epoch, values))
    for name in UNTRAINED:
        values = np.array([np.nan if row["untrained"][name] is None else row["untrained"][name] for row in rows])
        said.append((name, 0, float(np.median([row["untrained_seconds"][name] for row in rows])), values))
    said += [(name, 0, 0.0, np.array([row[name] for row in rows])) for name in COUNTED]
    untrained = {name: values for name, _, _, values in said if name in VOTE}
    vote = np.sum([NormalScores(v[np.isfinite(v)])(lowest(v)) for v in untrained.values()], axis=0)
    said.append(("vote", 0, sum(seconds for name, _, seconds, _ in said if name in VOTE), vote))
    negative = {
        f"share of rising losses after {epochs} epochs": float(
            np.mean([neg_fraction(np.array(row["losses"])[:epochs]) for row in rows])
        )
        for epochs in after
    }
    return {
        "searches": searches(rows, said, truth),
        "networks": len(rows),
        **negative,
        "rows": [
            {
                "proxy": name,
                "epochs": epochs,
                "seconds": seconds,
                **figures(values, truth),
                "tau, first half": kendall(values[halves[0]], truth[halves[0]]),
                "tau, second half": kendall(values[halves[1]], truth[halves[1]]),
                "tau of vote above it, second half": above(vote[halves[1]], values[halves[1]], truth[halves[1]]),
            }
            for name, epochs, seconds, values in said
        ],
    }


def above(one: F, other: F, truth: F) -> dict[str, float]:
    """By how much the tau of one is above that of the other, of resampled networks."""
    rng = np.random.default_rng(SEED)
    draws = [rng.integers(len(truth), size=len(truth)) for _ in range(RESAMPLED)]
    apart = [kendall(one[d], truth[d]) - kendall(other[d], truth[d]) for d in draws]
    low, high = np.nanquantile(apart, [0.025, 0.975])
    return {"mean": kendall(one, truth) - kendall(other, truth), "low": float(low), "high": float(high)}


def searches(rows: list[dict[str, Any]], said: list[tuple[str, int, float, F]], truth: F) -> list[dict[str, Any]]:
    """Test accuracy of the best of a few random networks within a limit, by each proxy."""
    ms, out = np.array([row["pi4_ms"] for row in rows]), []
    for limit in LIMITS_MS:
        within = np.flatnonzero(ms <= limit)
        count = min(DRAWS, len(within))
        draws = [np.random.default_rng([SEED, i]).permutation(within)[:count] for i in range(RUNS)]
        for name, epochs, _, values in said if count > 1 else ():
            found = [float(truth[d[np.argmax(lowest(values)[d])]]) for d in draws]
            best = [float(truth[d].max()) for d in draws]
            out.append(
                {
                    "limit (ms)": limit,
                    "networks within it": len(within),
                    "draws": count,
                    "proxy": name,
                    "epochs": epochs,
                    "test accuracy (%)": interval(found),
                    "best drawn (%)": float(np.mean(best)),
                }
            )
    return out


def figures(values: F, truth: F) -> dict[str, Any]:
    rng = np.random.default_rng(SEED)
    draws = [rng.integers(len(truth), size=len(truth)) for _ in range(RESAMPLED)]
    out = {}
    for label, of in (("Kendall tau", kendall), ("Spearman", spearman)):
        again = [of(values[d], truth[d]) for d in draws]
        low, high = np.nanquantile(again, [0.025, 0.975])
        out[label] = {"mean": of(values, truth), "low": float(low), "high": float(high)}
    return out


def kendall(values: F, truth: F) -> float:
    return float(quality(lowest(values), truth)["kendall"])


def spearman(values: F, truth: F) -> float:
    return float(quality(lowest(values), truth)["spearman"])


def lowest(values: F) -> F:
    """A network that a proxy has no number for is the worst."""
    known = values[np.isfinite(values)]
    least = known.min() if len(known) else 0.0
    return np.where(np.isfinite(values), values, least - 1.0)


@styled
def drawn(data: Sequence[dict[str, Any]]) -> Any:
    """Kendall tau with its interval against seconds a network, a panel per setting."""
    figure = canvas(3.6)
    panels = figure.subplots(1, len(data), sharey=True, squeeze=False)[0]
    for ax, result in zip(panels, data):
        quiet(ax, grid="both").axhline(0, linewidth=0.8, color=MUTED)
        rows = result["summary"]["rows"]
        colours = dict(zip(SHOWN, (*CYCLE, *CYCLE)))
        for name in SHOWN:
            mine = [row for row in rows if row["proxy"] == name and row["seconds"] > 0]
            taus = np.array([[row["Kendall tau"][key] for key in ("mean", "low", "high")] for row in mine]).T
            x = [row["seconds"] * (1 + 0.03 * SHOWN.index(name)) for row in mine]
            style = {"marker": "o" if mine[0]["epochs"] else "D", "color": colours[name], "markersize": 4}
            ax.errorbar(x, taus[0], abs(taus[1:] - taus[0]), linewidth=1, elinewidth=0.6, label=name, **style)
        counted = next(row for row in rows if row["proxy"] == "macs")["Kendall tau"]["mean"]
        ax.axhline(counted, linewidth=0.8, linestyle="--", color=MUTED)
        ax.text(1, counted, "MACs", transform=ax.get_yaxis_transform(), ha="right", va="bottom", color=MUTED)
        images, count = result["settings"]["images"], result["summary"]["networks"]
        title = f"{'all' if images is None else f'{images:,}'} images, {count} networks"
        where = "shared GPU" if "gpu" in result["machine"] else "one core"
        ax.set(xscale="log", xlabel=f"seconds a network, {where}", title=title)
        ax.set_xlim(left=10 ** np.floor(np.log10(min(row["seconds"] for row in rows if row["seconds"] > 0))))
        ax.xaxis.set_minor_formatter(NullFormatter())
    panels[0].set_ylabel("Kendall tau with the accuracy after 200 epochs")
    panels[-1].legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


if __name__ == "__main__":
    main()
