"""What counts of networks tell of their latency: multiply-accumulates, parameters, memory access, MACs per byte.

Must show (issue Beyond the classifier, 4; thesis, Figs. 3.2 and 4.2; appendix of Supernet Shifting, Fig. 3). Networks
drawn uniformly from three spaces, measured on this CPU: ONNX Runtime, of 32 and of 8 bits, and uncompiled PyTorch. The
core cell is LightNAS' space on ONNX Runtime. Kendall's tau with the 95 % interval of resampled networks. Energy is
measured where there is a counter; here there is none.

Wants a quiet machine. Reduced: a lower resolution, and fewer networks where a network takes long. Full: as published,
with a thousand networks in each cell.

    python benchmarks/complexity_study.py [--full] [--space NAME] [--target NAME]
    python benchmarks/complexity_study.py [--full] figure     # docs/img/complexity.svg
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sartor
from common import CACHE, RESULTS, Results, parser
from sartor import workflow
from sartor.report.figures import COUNTS
from sartor.report.style import BLUE, canvas, quiet, styled
from sartor.runs import read_json
from sartor.targets.store import Store

TARGETS = ("onnxruntime:cpu", "onnxruntime:cpu?precision=int8", "torch:cpu")
REDUCED: dict[str, Any] = {
    "spaces": {"mobilenet:lightnas?resolution=128": 1000, "shufflenet?resolution=128": 1000, "nas-bench-201": 500},
    "seed": 0,
}
FULL: dict[str, Any] = {
    "spaces": {"mobilenet:lightnas": 1000, "shufflenet": 1000, "nas-bench-201": 1000},
    "seed": 0,
}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("what", nargs="?", default="measure", choices=["measure", "figure"])
    options.add_argument("--space", action="append", help="as in the settings, default all")
    options.add_argument("--target", choices=TARGETS, action="append", help="default all")
    given = options.parse_args()
    setting, name = FULL if given.full else REDUCED, f"complexity_study{'_full' if given.full else ''}"
    if given.what == "figure":
        out = Path(__file__).parent.parent / "docs" / "img" / "complexity.svg"
        drawn(read_json(RESULTS / f"{name}.json"), next(iter(setting["spaces"]))).savefig(out, facecolor="white")
        return
    torch.set_num_threads(1)
    results = Results(
        name,
        "what counts tell of latency",
        {**setting, "targets": [sartor.targets.get(target).id for target in TARGETS]},
    )
    for target in given.target or TARGETS:
        for space in given.space or setting["spaces"]:
            cell = {"space": space, "target": target, "networks": setting["spaces"][space]}
            results.row(cell, partial(study, name, **cell, seed=setting["seed"]))
    results.summarise(rows=summary(results.data["rows"]))


def study(name: str, space: str, target: str, networks: int, seed: int) -> dict[str, Any]:
    (CACHE / name).mkdir(parents=True, exist_ok=True)
    with Store(CACHE / name / "measurements.db") as store:
        found = workflow.complexity_study(
            sartor.spaces.get(space), sartor.targets.get(target), networks, ["latency_ms"], store, seed
        )
    points = {key: [None if v is None else float(f"{v:.5g}") for v in of] for key, of in found["points"].items()}
    return {"measured": found["networks"], "taus": found["rows"], "points": points}


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line per space and target."""
    out = []
    for row in rows:
        known = np.isfinite(np.array(row["points"]["latency_ms"], dtype=float))
        out.append(
            {
                "space": row["cell"]["space"],
                "target": row["cell"]["target"],
                "networks": int(known.sum()),
                **{
                    f"tau of {COUNTS[one['count']]}": {"mean": one["tau"], "low": one["low"], "high": one["high"]}
                    for one in row["taus"]
                },
            }
        )
    return out


@styled
def drawn(data: dict[str, Any], space: str) -> Any:
    """Latency against each count, a row per target, of one space."""
    rows = [row for row in data["rows"] if row["cell"]["space"] == space]
    figure = canvas(2.1 * len(rows) + 0.3)
    grid = figure.subplots(len(rows), len(COUNTS), squeeze=False, sharex="col", sharey="row")
    factors = {"macs": 1e6, "params": 1e6, "mem_access_bytes": 1e6}
    units = {"macs": " (M)", "params": " (M)", "mem_access_bytes": ""}
    for axes, row in zip(grid, rows):
        for ax, (count, label), one in zip(axes, COUNTS.items(), row["taus"]):
            quiet(ax, grid="both")
            x = np.array(row["points"][count], dtype=float) / factors.get(count, 1.0)
            ax.scatter(x, np.array(row["points"]["latency_ms"], dtype=float), s=3, color=BLUE, alpha=0.4, linewidths=0)
            ax.set_title(f"tau {one['tau']:.2f}", fontsize=8)
            if row is rows[-1]:
                ax.set_xlabel(f"{label.replace('bytes', 'MB')}{units.get(count, '')}", fontsize=8)
        axes[0].set_ylabel(f"{row['cell']['target'].replace('?precision=', ' ')}\nlatency (ms)", fontsize=8)
    return figure


if __name__ == "__main__":
    main()
