"""Measured speed of MobileNetV2 and ResNet-50 as blocks are grafted and collapsed (thesis Fig. 5.2).

Must show (issue Domino, 2). From the first block on, one more at a time; and each block alone, by which a block that is
slower when it is merged is known. ONNX Runtime and torch on the CPU, 1 and 2 threads, batch 1 and 8, all networks of a
cell in one sitting. Speed-up is against the network as it is, with its batch norms folded.

Reduced: 64 pixels. Full: 224. Wants a quiet machine.

    python benchmarks/graft_speed.py [--full] [--network NAME] [--threads N]
    python benchmarks/graft_speed.py figure     # docs/img/graft_speed.svg from the results
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import sartor
from common import CACHE, RESULTS, Results, parser
from sartor import workflow
from sartor.report.style import CYCLE, DASHES, canvas, quiet, styled
from sartor.runs import read_json
from sartor.spaces.complexity import Complexity
from sartor.spaces.grafts import Grafts
from sartor.targets.store import Store

NETWORKS = ("mobilenet_v2", "resnet50")
CELLS = [(runtime, threads, batch) for threads in (1, 2) for batch in (1, 8) for runtime in ("onnxruntime", "torch")]
REDUCED, FULL = {"resolution": 64}, {"resolution": 224}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("what", nargs="?", default="measure", choices=["measure", "figure"])
    options.add_argument("--network", choices=NETWORKS, help="one network")
    options.add_argument("--threads", type=int, choices=(1, 2), help="one number of threads")
    given = options.parse_args()
    name = f"graft_speed{'_full' if given.full else ''}"
    if given.what == "figure":
        out = Path(__file__).parent.parent / "docs" / "img" / "graft_speed.svg"
        drawn(read_json(RESULTS / f"{name}.json")["rows"]).savefig(out, facecolor="white")
        return
    setting: dict[str, Any] = FULL if given.full else REDUCED
    results = Results(name, "faster with MobileNetV2's blocks grafted; blocks that are slower are known", setting)
    store = Store(CACHE / f"{name}.db")
    for network in NETWORKS if given.network is None else [given.network]:
        space = Grafts(f"torchvision:{network}", resolution=setting["resolution"], candidates=["graft"])
        for runtime, threads, batch in CELLS:
            if given.threads in (None, threads):
                cell = {"network": network, "runtime": runtime, "threads": threads, "batch": batch}
                results.row(cell, lambda s=space, c=cell: measured(s, c, store))
                results.summarise(rows=[summary(row) for row in results.data["rows"]])


def measured(space: Grafts, cell: dict[str, Any], store: Store) -> dict[str, Any]:
    target = sartor.targets.get(f"{cell['runtime']}:cpu?threads={cell['threads']}&batch={cell['batch']}")
    count = len(space.slots)
    first = [tuple(int(i < n) for i in range(count)) for n in range(count + 1)]
    alone = [tuple(int(i == n) for i in range(count)) for n in range(count)]
    archs = list(dict.fromkeys([*first, *alone]))
    rows = workflow.compare([(space, arch) for arch in archs], target, ["latency_ms"], store, f"grafts {cell}")
    ms = {arch: row["latency_ms"] for arch, row in zip(archs, rows)}
    macs = Complexity(space, "macs")
    return {
        "target": target.id,
        "blocks": [slot.name for slot in space.slots],
        "grafted from the first on (ms)": [ms[arch] for arch in first],
        "macs": macs(first).tolist(),
        "grafted alone (ms)": [ms[arch] for arch in alone],
    }


def summary(row: dict[str, Any]) -> dict[str, Any]:
    ms, alone = (np.array(row[f"grafted {key} (ms)"], float) for key in ("from the first on", "alone"))
    slower = [name for name, one in zip(row["blocks"], alone) if one > 1.03 * ms[0]]
    return {
        **row["cell"],
        "as it is (ms)": float(ms[0]),
        "all grafted (ms)": float(ms[-1]),
        "speed-up, all grafted": float(ms[0] / ms[-1]),
        "blocks slower by more than 3 % alone": f"{len(slower)} of {len(alone)}",
        "macs, all grafted / as it is": row["macs"][-1] / row["macs"][0],
    }


@styled
def drawn(rows: list[dict[str, Any]]) -> Any:
    """Speed-up against the number of grafted blocks, a panel per network."""
    figure = canvas(3.4)
    axes = figure.subplots(1, len(NETWORKS))
    for ax, network in zip(axes, NETWORKS):
        quiet(ax, grid="both")
        for row in (row for row in rows if row["cell"]["network"] == network):
            cell, ms = row["cell"], np.array(row["grafted from the first on (ms)"], float)
            threads = f"{cell['threads']} thread{'s' * (cell['threads'] > 1)}"
            ax.plot(
                ms[0] / ms,
                color=CYCLE[(cell["runtime"] == "torch") * 2 + (cell["batch"] == 8)],
                linestyle=DASHES[cell["threads"] - 1],
                label=f"{cell['runtime']}, batch {cell['batch']}, {threads}",
            )
        ax.axhline(1, linewidth=0.8, color="black")
        ax.set(xlabel="blocks grafted, from the first on", ylabel="measured speed-up", title=network)
        ax.set_ylim(bottom=0)
        ax.xaxis.get_major_locator().set_params(integer=True)
    axes[0].legend(frameon=False, fontsize=6.5, loc="lower right", ncols=2)
    return figure


if __name__ == "__main__":
    main()
