"""MathNAS's three claims about blocks, on all 15,625 networks of NAS-Bench-201.

ablation (appendix, Table 2): how far block tables are from every network's accuracy, latency and energy: complete,
without the MACs, measured in another context than the average network, with other reference blocks; and how much
measuring in more contexts helps; beside a constant, the mean of all. What is drawn at random is drawn `DRAWS` times;
`refused` are draws in which a block has no number, which happens on the edge GPU.

fits (Table 1): what a block loses against the reference, in every context, as a + b g(F) of the network's MACs F, for
five g. `any function` is what no function of F can beat: the share of the variance between networks of equal MACs; `of
means` is R^2 of the mean loss at each F, the same fit over that share. Published, not reproduced (ImageNet16-120; over
which numbers is not said): .57 linear, .46 quadratic, .68 reciprocal, .61 logarithmic, .004 exponential, which is what
exp(F) of large F gives; ours is exp(-F / mean F), beside that.

beta (Figure 1): are the accuracies of networks that hold a block beta distributed, and what a block loses? The
distribution is fitted on a random half and tested by Kolmogorov and Smirnov on the other, and on 100 of the other, as
what was fitted on the same numbers is never far from them. Its ends are 0 and 100 %, or those of the fitted half.

    python benchmarks/mathnas_law.py      also draws docs/img/mathnas_law.svg and mathnas_blocks.svg
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from common import Results, interval, parser
from sartor import tables
from sartor.core import F, UserError
from sartor.predictors.evaluate import quality
from sartor.quality.blocks import additive_macs, average_network, base_network, block_score
from sartor.report.style import CYCLE, DASHES, INK, MUTED, canvas, quiet, styled

VALID, TEST = "cifar10_valid_acc_200ep", "cifar10_test_acc_200ep"
COSTS = ("hwnb_raspi4_latency_ms", "hwnb_edgegpu_latency_ms", "hwnb_edgegpu_energy_mj")
DRAWS, PARTIAL, SMALL, LEVEL = 20, 31, 100, 0.05
SHOWN, LOST = (1, 5), (-15.0, 60.0)  # edges and range of the figure
FIGURES = {"RMSE": "rmse", "MAE": "mae", "Spearman": "spearman"}
IMAGES = Path(__file__).parent.parent / "docs" / "img"
FITS: dict[str, Callable[[F, float], F]] = {
    "linear": lambda x, _: x,
    "quadratic": lambda x, _: x**2,
    "reciprocal": lambda x, _: 1 / x,
    "logarithmic": lambda x, _: np.log(x),
    "exponential": lambda x, mean: np.exp(-x / mean),
    "exp(F), F in MMACs": lambda x, _: np.exp(x / 1e6),
}
PUBLISHED = {"linear": 0.57, "quadratic": 0.46, "reciprocal": 0.68, "logarithmic": 0.61, "exp(F), F in MMACs": 0.004}


def main() -> None:
    parser(__doc__).parse_args()
    table = tables.load("nas-bench-201", f"{os.environ.get('SARTOR_DATA', '../shared/data')}/nas_bench_201.parquet")
    results = Results(
        "mathnas_law",
        "the appendix's ablations, fits and distributions on the whole table",
        {"draws": DRAWS, "partial contexts": PARTIAL, "columns": [VALID, TEST, *COSTS], "sub-sample": SMALL},
    )
    world = World(table)
    for column in (VALID, TEST, *COSTS):
        world.ablate(results, column)
    world.fit(results)
    world.distribute(results)
    summary = {
        "accuracy (points)": ablations(results, table, (VALID, TEST)),
        "latency and energy (unit of the column)": ablations(results, table, COSTS),
        "R2 of what a block loses": fits(results),
        "beta distribution": betas(results),
    }
    results.summarise(**summary)
    for name, figure in (("law", world.draw_law()), ("blocks", world.draw_blocks())):
        with matplotlib.rc_context({"svg.hashsalt": name}):  # the same numbers, the same file
            figure.savefig(IMAGES / f"mathnas_{name}.svg", facecolor="white", metadata={"Date": None})


class World:
    """The whole table, and what blocks lose in it."""

    def __init__(self, table: Any) -> None:
        self.table, self.space = table, table.space
        self.archs = list(table.row)
        self.macs = additive_macs(self.space)
        self.base = base_network(self.space, self.macs)

    def dense(self, values: F) -> F:
        """(n,) in the table's order to (candidates, ...) a slot."""
        out = np.empty([len(slot) for slot in self.space.slots])
        out[tuple(np.array(self.archs).T)] = values
        return out

    def switches(self) -> list[tuple[int, int]]:
        """Slots, and candidates that are not their reference."""
        return [(i, j) for i, slot in enumerate(self.space.slots) for j in range(len(slot)) if j != self.base[i]]

    def lost(self, column: str, slot: int, candidate: int) -> tuple[F, F]:
        """(contexts,) what is lost from the reference to the candidate, and the MACs of the network with it."""
        values, macs = self.dense(self.table.columns[column]), self.dense(self.macs(self.space, self.archs))
        there = values.take(candidate, slot)
        return (values.take(self.base[slot], slot) - there).ravel(), macs.take(candidate, slot).ravel()

    # ------------------------------------------------------------------ ablation

    def ablate(self, results: Results, column: str) -> None:
        accuracy = column in (VALID, TEST)
        modes = ("per_block", "global", "context", "none") if accuracy else ("none",)
        for name, draws, make in self.variants():
            for mode in modes if name.startswith("complete") else modes[:1]:
                for draw in range(draws):
                    cell = {"ablation": column, "variant": name, "macs": mode, "draw": draw}
                    results.row(cell, lambda m=make, d=draw, k=mode: self.grade(column, k, *m(d)))  # type: ignore[misc]

    def variants(self) -> list[tuple[str, int, Callable[[int], tuple[Any, Any]]]]:
        """Name, number of draws, and by draw the contexts and the network of reference blocks."""
        average, least = average_network(self.space, self.macs), [int(np.argmin(m)) for m in self.macs.unary]

        def drawn(stream: int, draw: int, count: int) -> list[Any]:
            return self.space.sample(np.random.default_rng([stream, draw]), count)  # type: ignore[no-any-return]

        return [
            ("complete, one context", 1, lambda _: ([average], self.base)),
            ("complete, partial (5 %)", DRAWS, lambda d: (drawn(0, d, PARTIAL), self.base)),
            ("complete, full", 1, lambda _: (self.archs, self.base)),
            ("another base net", DRAWS, lambda d: (drawn(1, d, 1), self.base)),
            ("other base blocks", DRAWS, lambda d: ([average], drawn(2, d, 1)[0])),
            ("smallest base blocks", 1, lambda _: ([average], least)),
        ]

    def grade(self, column: str, mode: Any, contexts: Any, base: Any) -> dict[str, Any]:
        score = self.table.score(column)
        known = np.isfinite(score.values)
        try:
            made = block_score(self.space, score, self.macs, contexts=contexts, base=base, mode=mode)
        except UserError as error:
            return {"refused": str(error)}
        found = quality(made([a for a, ok in zip(self.archs, known) if ok]), score.values[known])
        return {key: found[key] for key in ("rmse", "mae", "spearman")} | {"left_out": int((~known).sum())}

    # ------------------------------------------------------------------ fits

    def fit(self, results: Results) -> None:
        for column in (VALID, TEST):
            for slot, candidate in self.switches():
                cell = {"fit": column, "slot": slot, "candidate": self.space.slots[slot].candidates[candidate]}
                results.row(cell, lambda c=column, i=slot, j=candidate: explained(*self.lost(c, i, j)))  # type: ignore[misc]
            every = [self.lost(column, i, j) for i, j in self.switches()]
            pooled = [np.concatenate(part) for part in zip(*every)]
            results.row({"fit": column, "slot": "all", "candidate": "all"}, lambda p=pooled: explained(*p))  # type: ignore[misc]

    # ------------------------------------------------------------------ distributions

    def distribute(self, results: Results) -> None:
        values = self.dense(self.table.columns[VALID])
        for i, slot in enumerate(self.space.slots):
            for j, name in enumerate(slot.candidates):
                cell = {"beta": "accuracy", "slot": i, "candidate": name}
                results.row(cell, lambda i=i, j=j: tested(values.take(j, i).ravel(), 0.0, 100.0))  # type: ignore[misc]
        for i, j in self.switches():
            cell = {"beta": "difference", "slot": i, "candidate": self.space.slots[i].candidates[j]}
            results.row(cell, lambda i=i, j=j: tested(self.lost(VALID, i, j)[0], -100.0, 100.0))  # type: ignore[misc]

    # ------------------------------------------------------------------ figures

    def draw_law(self) -> Figure:
        shown = [(i, j) for i in SHOWN for j in range(len(self.space.slots[i])) if j != self.base[i]]
        named = [f"{self.space.slots[i].name}, {self.space.slots[i].candidates[j]}" for i, j in shown]
        return law(named, [self.lost(VALID, i, j) for i, j in shown], len(SHOWN))

    def draw_blocks(self) -> Figure:
        columns = {VALID: "accuracy lost (points)", COSTS[0]: "latency saved, Raspberry Pi 4 (ms)"}
        slots = self.space.slots
        names = [name for j, name in enumerate(slots[0].candidates) if j != self.base[0]]
        means = {
            label: np.array([self.lost(column, i, j)[0].mean() for i, j in self.switches()]).reshape(len(slots), -1)
            for column, label in columns.items()
        }
        return importance([slot.name for slot in slots], names, means)


# ---------------------------------------------------------------------- what is computed


def explained(lost: F, macs: F) -> dict[str, Any]:
    """R^2 of a + b g(F) by least squares for each g, and of the mean over networks of the same MACs."""
    level, mean = means(lost, macs)
    found = {name: stats.linregress(g(macs, macs.mean()), lost).rvalue ** 2 for name, g in FITS.items()}
    return {
        "lost": float(lost.mean()),
        **found,
        "any function": float(mean[np.searchsorted(level, macs.round())].var() / lost.var()),
    }


def means(lost: F, macs: F) -> tuple[F, F]:
    """The levels of MACs, and the mean of what is lost at each."""
    level, group = np.unique(macs.round(), return_inverse=True)
    return level, np.bincount(group, lost) / np.bincount(group)


def tested(values: F, low: float, high: float) -> dict[str, Any]:
    """Distance D and p of Kolmogorov and Smirnov, half against half, for given ends and those of the fitted half.

    rejected: share of `DRAWS` tests on 100 values whose p is below 5 %.
    """
    rng = np.random.default_rng(len(values))
    fit, rest = np.array_split(values[rng.permutation(len(values))], 2)
    margin = 0.01 * float(np.ptp(fit))
    out: dict[str, Any] = {"mean": float(values.mean()), "std": float(values.std())}
    for name, (a, b) in {"given": (low, high), "fitted": (fit.min() - margin, fit.max() + margin)}.items():
        shape = stats.beta.fit((fit - a) / (b - a), floc=0, fscale=1)[:2]
        at = np.clip((rest - a) / (b - a), 0, 1)
        whole = stats.kstest(at, "beta", shape)
        few = [stats.kstest(rng.choice(at, SMALL, replace=False), "beta", shape).pvalue for _ in range(DRAWS)]
        out[name] = {
            "alpha": float(shape[0]),
            "beta": float(shape[1]),
            "D": float(whole.statistic),
            "p": float(whole.pvalue),
            "rejected": float(np.mean(np.array(few) < LEVEL)),
        }
    return out


def ablations(results: Results, table: Any, columns: Sequence[str]) -> list[dict[str, Any]]:
    out = []
    for column in columns:
        gap = table.columns[column] - np.nanmean(table.columns[column])
        errors = {"RMSE": float(np.sqrt(np.nanmean(gap**2))), "MAE": float(np.nanmean(np.abs(gap))), "Spearman": None}
        refused = {"refused": 0} if columns == COSTS else {}
        out.append({"column": column, "tables": "none: a constant", "MACs": None, "draws": 1, **errors, **refused})
    rows = [row for row in results.data["rows"] if row["cell"].get("ablation") in columns]
    for cell in dict.fromkeys((r["cell"]["ablation"], r["cell"]["variant"], r["cell"]["macs"]) for r in rows):
        column, variant, macs = cell
        mine = [row for row in rows if tuple(row["cell"][k] for k in ("ablation", "variant", "macs")) == cell]
        known = [row for row in mine if "rmse" in row]
        figures = {label: [row[key] for row in known] for label, key in FIGURES.items()}
        out.append(
            {
                "column": column,
                "tables": variant,
                "MACs": macs,
                "draws": len(known),
                **{label: (interval(v) if len(v) > 1 else v[0] if v else None) for label, v in figures.items()},
                **({"refused": len(mine) - len(known)} if columns == COSTS else {}),
            }
        )
    return out


def fits(results: Results) -> list[dict[str, Any]]:
    """Means over the switches, least and most, and one curve for all."""
    out = []
    for column in (VALID, TEST):
        rows = [row for row in results.data["rows"] if row["cell"].get("fit") == column]
        single = [row for row in rows if row["cell"]["slot"] != "all"]
        (pooled,) = [row for row in rows if row["cell"]["slot"] == "all"]
        for name in (*FITS, "any function"):
            known = [row[name] for row in single]
            out.append(
                {
                    "column": column,
                    "g": name,
                    "mean of switches": float(np.mean(known)),
                    "of means": float(np.mean([row[name] / row["any function"] for row in single])),
                    "least and most": [min(known), max(known)],
                    "best of the five in": sum(
                        max((n for n in FITS if n in PUBLISHED or n == "exponential"), key=row.__getitem__) == name
                        for row in single
                    ),
                    "all switches, one curve": pooled[name],
                    "of its means": pooled[name] / pooled["any function"],
                    "published, not reproduced": PUBLISHED.get(name),
                }
            )
    return out


def betas(results: Results) -> list[dict[str, Any]]:
    out = []
    for kind in ("accuracy", "difference"):
        rows = [row for row in results.data["rows"] if row["cell"].get("beta") == kind]
        for ends in ("given", "fitted"):
            found = [row[ends] for row in rows]
            out.append(
                {
                    "of": {"accuracy": "accuracy with a block", "difference": "accuracy lost by a block"}[kind],
                    "ends": ends,
                    "blocks": len(rows),
                    "rejected at 5 %": sum(f["p"] < LEVEL for f in found),
                    "D, median": float(np.median([f["D"] for f in found])),
                    "D, least and most": [min(f["D"] for f in found), max(f["D"] for f in found)],
                    f"rejected by {SMALL} networks (%)": 100 * float(np.mean([f["rejected"] for f in found])),
                }
            )
    return out


# ---------------------------------------------------------------------- figures


@styled
def law(names: Sequence[str], switches: Sequence[tuple[F, F]], rows: int) -> Figure:
    """What a block loses against the MACs of the network, and the five fits: a panel a switch, `rows` of them."""
    figure = canvas(2.15 * rows + 0.8)
    grid = figure.subplots(rows, len(names) // rows, sharex=True, sharey=True, squeeze=False)
    for ax, name, (lost, macs) in zip(grid.flat, names, switches):
        quiet(ax, grid="both").set_title(name.replace("->", "→"))
        ax.scatter(macs / 1e6, lost, s=3, color=MUTED, alpha=0.25, linewidths=0, rasterized=True)
        x = np.linspace(macs.min(), macs.max(), 200)
        for i, (fit, g) in enumerate(list(FITS.items())[:5]):
            line = stats.linregress(g(macs, macs.mean()), lost)
            y = line.intercept + line.slope * g(x, macs.mean())
            ax.plot(x / 1e6, y, color=CYCLE[i], linestyle=DASHES[i % len(DASHES)], linewidth=1.3, label=fit)
        level, mean = means(lost, macs)
        ax.scatter(level / 1e6, mean, s=7, color=INK, linewidths=0, zorder=3, label="mean at equal MACs")
        ax.axhline(0, color=INK, linewidth=0.7)
        ax.set_ylim(*LOST)
    figure.supxlabel("MACs of the network with the candidate (millions)", fontsize=8.5)
    figure.supylabel("accuracy lost against nor_conv_3x3 (points)", fontsize=8.5)
    figure.legend(*grid.flat[0].get_legend_handles_labels(), loc="outside upper left", ncols=7)
    return figure


@styled
def importance(slots: Sequence[str], candidates: Sequence[str], means: dict[str, F]) -> Figure:
    """Mean difference over all contexts, a group of bars a slot and a panel a column; means: (slots, candidates)."""
    figure = canvas(2.9 * len(means) / 2 + 1.0)
    grid = figure.subplots(1, len(means), squeeze=False)[0]
    width = 0.8 / len(candidates)
    for ax, (label, mean) in zip(grid, means.items()):
        quiet(ax)
        for j, name in enumerate(candidates):
            at = np.arange(len(slots)) + (j - (len(candidates) - 1) / 2) * width
            ax.bar(at, np.abs(mean[:, j]), width, color=CYCLE[j], label=name)
        ax.set(xticks=range(len(slots)), xlabel="edge of the cell", ylabel=f"mean {label}")
        ax.set_xticklabels([slot.replace("->", "→") for slot in slots])
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper left", ncols=len(candidates))
    return figure


if __name__ == "__main__":
    main()
