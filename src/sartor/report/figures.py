"""Figures from plain data: journals, evaluations and results as the run directories hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sartor.core import F, show
from sartor.report.drawing import architecture
from sartor.report.style import (
    BLUE,
    CYCLE,
    DASHES,
    GREEN,
    INK,
    MUTED,
    SKY,
    SURFACE,
    VERMILLION,
    WIDTH,
    canvas,
    label_points,
    legend_above,
    quiet,
    styled,
)
from sartor.report.values import Line, epochs, known, number, scaled, series

__all__ = ["architecture", "decisions", "evolution", "predicted_measured", "tradeoff", "training_curves", "trajectory"]

TOLERANCE = 0.005
DECIDED = 28  # slots whose decisions are drawn
STEPS = [1, 2, 2.5, 5, 10]  # of axis ticks
COUNTS = {
    "macs": "multiply-accumulates",
    "params": "parameters",
    "mem_access_bytes": "memory access (bytes)",
    "macs_per_byte": "MACs per byte",
}
_NOT_QUALITY = {"event", "epoch", "loss", "lr", "seconds", "step"}


@styled
def trajectory(
    journal: Sequence[Line],
    budgets: Sequence[Line],
    predicted: Mapping[str, float | None] | None = None,
    measured: Mapping[str, float | None] | None = None,
) -> Figure:
    """A search by epoch: cost of the argmax and expected cost against each budget, multipliers, losses.

    journal: lines of `search/journal.jsonl`; budgets: `metric`, `limit`, `sense` each; predicted, measured: cost of
    the network the search landed on, marked at the end.
    """
    lines = epochs(journal)
    x = series(lines, "epoch") + 1
    panels: list[tuple[str, Line]] = []
    for budget in budgets:
        panels.append(("cost", budget))
        if np.isfinite(series(lines, f"multiplier_{budget['metric']}")).any():
            panels.append(("multiplier", budget))
    if any(np.isfinite(series(lines, key)).any() for key in ("loss", "valid_loss")):
        panels.append(("loss", {}))
    heights = [2.5 if kind == "cost" else 1.25 for kind, _ in panels]
    figure = canvas(sum(heights) + 0.5)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    valid = series(lines, "valid_loss")
    warm = int(np.flatnonzero(np.isfinite(valid))[0]) if np.isfinite(valid).any() else 0
    for ax, (kind, budget) in zip(axes, panels):
        quiet(ax)
        if warm:
            ax.axvspan(0.5, warm + 0.5, color=MUTED, alpha=0.09, linewidth=0)
        if kind == "cost":
            _cost(ax, x, lines, budget, predicted or {}, measured or {})
        elif kind == "multiplier":
            ax.plot(x, series(lines, f"multiplier_{budget['metric']}"), color=INK, linewidth=1.3)
            several = f"\n{known(budget['metric']).label.partition(' (')[0]}" if len(budgets) > 1 else ""
            ax.set_ylabel(f"multiplier λ{several}")
        else:
            ax.plot(x, series(lines, "loss"), color=BLUE, label="training, weights", linewidth=1.3)
            ax.plot(x, valid, color=VERMILLION, linestyle=DASHES[1], label="validation, architecture", linewidth=1.3)
            ax.set_ylabel("loss")
            legend_above(ax)
        ax.yaxis.set_major_locator(MaxNLocator(5 if kind == "cost" else 3, steps=STEPS))
    axes[-1].set_xlabel("epoch")
    axes[-1].xaxis.set_major_locator(MaxNLocator(10, integer=True, steps=[1, 2, 5, 10]))
    if warm:
        where = next((ax for ax, (kind, _) in zip(axes, panels) if kind == "multiplier"), axes[0])
        where.text(0.8, 0.95, "warm-up", color=MUTED, fontsize=8, va="top", transform=where.get_xaxis_transform())
    axes[0].set_xlim(0.5, float(x[-1]) + 0.5 + max(1.4, 0.042 * len(x)))
    figure.align_ylabels(axes)
    return figure


def _cost(
    ax: Axes,
    x: F,
    lines: Sequence[Line],
    budget: Line,
    predicted: Mapping[str, float | None],
    measured: Mapping[str, float | None],
) -> None:
    name, limit = budget["metric"], float(budget["limit"])
    of = known(name)
    costs, expected = series(lines, name), series(lines, f"expected_{name}")
    factor, label = scaled(name, [limit])
    top = 1 + TOLERANCE if budget.get("sense") == "at" else 1.0
    ax.axhspan(limit * (1 - TOLERANCE) / factor, limit * top / factor, color=GREEN, alpha=0.35, linewidth=0)
    ax.axhline(limit / factor, color=GREEN, linewidth=1.2, label=f"budget {show(limit, of)}")
    ax.plot(x, expected / factor, color=SKY, linestyle=DASHES[1], label="expected", linewidth=1.5)
    ax.plot(x, costs / factor, color=BLUE, label="most likely")
    step = max(0.6, 0.018 * len(x))
    end = float(x[-1])
    for values, word, marker, fill in ((predicted, "predicted", "D", VERMILLION), (measured, "measured", "o", SURFACE)):
        value, end = number(values.get(name)), end + step
        if value is not None:
            style: dict[str, Any] = {"marker": marker, "markerfacecolor": fill, "markeredgecolor": VERMILLION}
            text = f"landed, {word} {show(value, of)}" if word == "predicted" else f"{word} {show(value, of)}"
            ax.plot([end], [value / factor], linestyle="", markersize=6, zorder=5, label=text, clip_on=False, **style)
    ax.margins(y=0.12)
    ax.set_ylabel(label)
    legend_above(ax)


@styled
def predicted_measured(fit: Line) -> Figure:
    """Predicted against measured on held-out architectures, and the relative error, a column per predictor.

    fit: what `fit.json` holds: `points` (`measured`, `predicted` by name), `metric`, `default`, `noise_floor`.
    """
    measured = np.asarray(fit["points"]["measured"], dtype=np.float64)
    columns = shown_predictors(fit)
    factor, label = scaled(str(fit.get("metric", "")), measured)
    truth = measured / factor
    floor = number(fit.get("noise_floor"))
    width = {1: 0.52, 2: 0.8}.get(len(columns), 1.0)
    side = (width * WIDTH - 0.75) / len(columns) - 0.15
    figure = canvas(side * (1 + 1.15 / 3) + 0.97, width * WIDTH)
    grid = figure.subplots(2, len(columns), sharex=True, sharey="row", squeeze=False, height_ratios=(3, 1.15))
    low, high = float(np.nanmin(truth)), float(np.nanmax(truth))
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    ends = np.array([low - margin, high + margin])
    worst = 8.0
    for (top, bottom), name in zip(grid.T, columns):
        values = np.asarray(fit["points"]["predicted"][name], dtype=np.float64) / factor
        error = (values / truth - 1.0) * 100.0
        worst = max(worst, float(np.nanmax(np.abs(error))) * 1.15)
        quiet(top, grid="both").set_box_aspect(1)
        bottom.set_box_aspect(1.15 / 3)
        top.fill_between(ends, ends * 0.95, ends * 1.05, color=SKY, alpha=0.22, linewidth=0, label="within 5 %")
        if floor is not None:
            reach = floor / factor
            top.fill_between(
                ends, ends - reach, ends + reach, color=GREEN, alpha=0.45, linewidth=0, label="noise floor"
            )
        top.plot(ends, ends, color=INK, linewidth=0.8, alpha=0.8)
        quiet(bottom).axhspan(-5, 5, color=SKY, alpha=0.22, linewidth=0)
        if floor is not None:
            relative = floor / factor / ends * 100
            bottom.fill_between(ends, -relative, relative, color=GREEN, alpha=0.45, linewidth=0)
        bottom.axhline(0, color=INK, linewidth=0.8)
        dots: dict[str, Any] = {"s": 13, "color": BLUE, "alpha": 0.75, "linewidths": 0}
        top.scatter(truth, values, **dots)
        bottom.scatter(truth, error, **dots)
        top.set_title(f"{name}{', used' if name == fit.get('default') else ''}", fontweight="bold", loc="left")
        bottom.set_xlabel(f"measured {label}")
        top.set(xlim=ends, ylim=ends)
    grid[0, 0].set_ylabel(f"predicted {label}")
    grid[1, 0].set_ylabel("error (%)")
    grid[1, 0].set_ylim(-worst, worst)
    grid[0, 0].legend(loc="upper left")
    figure.align_ylabels(grid[:, 0])
    return figure


def shown_predictors(fit: Line) -> list[str]:
    """The predictors of `points` in order: the one used, ridge to compare it with, and one more."""
    names = list(fit["points"]["predicted"])
    first = [n for n in (fit.get("default"), "ridge") if n in names]
    return list(dict.fromkeys([*first, *names]))[:3]


@styled
def tradeoff(points: Sequence[Line], budgets: Sequence[Line] = (), how: str = "measured") -> Figure:
    """Quality against cost of trained networks.

    points: `name`, `cost`, `value`, `cost_metric`, `metric`, `found` for what a search returned, and `range` of
    repeated measurements where there are some; budgets: limits on the same cost, drawn as lines; how: where costs are
    from.
    """
    cost_metric, metric = str(points[0]["cost_metric"]), str(points[0]["metric"])
    limits = [float(b["limit"]) for b in budgets if b.get("metric") == cost_metric]
    factor, label = scaled(cost_metric, [float(p["cost"]) for p in points])
    at = [(float(p["cost"]) / factor, float(p["value"])) for p in points]
    figure = canvas(3.6)
    ax = quiet(figure.subplots(), grid="both")
    ends = [float(v) for p in points for v in p.get("range", [p["cost"]])]
    xs, ys = [v / factor for v in (*ends, *limits)], [y for _, y in at]
    ax.set(xlim=_room(xs, 0.08 * max(map(abs, xs))), ylim=_room(ys, 0.02 * max(map(abs, ys))))
    for limit in limits:
        ax.axvline(limit / factor, color=GREEN, linewidth=1.2)
        text = f"budget {show(limit, known(cost_metric))}"
        place: dict[str, Any] = {"xycoords": ax.get_xaxis_transform(), "textcoords": "offset points"}
        ax.annotate(text, (limit / factor, 0.02), (4, 0), color=GREEN, fontsize=8, **place)
    colours = [VERMILLION if p.get("found") else BLUE for p in points]
    bars: list[tuple[float, float]] = []
    for (x, y), point, colour in zip(at, points, colours):
        low, high = (float(v) / factor for v in point.get("range", (point["cost"], point["cost"])))
        if low < high:
            ax.plot([low, high], [y, y], color=colour, linewidth=1.4, zorder=3)
            bars += [(float(v), y) for v in np.linspace(low, high, 25)]
        ax.plot([x], [y], marker="D" if point.get("found") else "o", color=colour, markersize=7, linestyle="", zorder=4)
    ax.set_xlabel(f"{how} {label}")
    ax.set_ylabel(known(metric).label)
    ax.yaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
    label_points(ax, at, [str(p["name"]) for p in points], colours, bars)
    return figure


def _room(values: Sequence[float], least: float) -> tuple[float, float]:
    """Limits around values with room for names; at least `least` apart, so that equal values look equal."""
    low, high = min(values), max(values)
    margin = max(0.25 * (high - low), (least - (high - low)) / 2, 1e-9)
    return low - margin, high + margin


@styled
def decisions(journal: Sequence[Line], slots: Sequence[tuple[str, Sequence[str]]]) -> Figure:
    """How likely each candidate of each slot was, epoch by epoch (thesis Fig. 3.13): a small panel a slot.

    journal: lines of a search with `permille`; slots: names and candidates, of which the first `DECIDED` are drawn.
    """
    lines = [line for line in epochs(journal) if line.get("permille")]
    lines = lines[:: max(1, len(lines) // 60)] + ([lines[-1]] if len(lines) > 60 else [])
    x = series(lines, "epoch") + 1
    shown = slots[:DECIDED]
    names = list(dict.fromkeys(c for _, candidates in shown for c in candidates))
    colours = [*CYCLE, INK, MUTED]
    style = {n: (colours[i % len(colours)], DASHES[i // len(colours) % len(DASHES)]) for i, n in enumerate(names)}
    columns = min(7, len(shown))
    rows = -(-len(shown) // columns)
    figure = canvas(1.05 * rows + 0.7)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for ax, (i, (slot, candidates)) in zip(axes.flat, enumerate(shown)):
        quiet(ax, grid="")
        for k, name in enumerate(candidates):
            colour, dash = style[name]
            ax.plot(x, [line["permille"][i][k] / 10 for line in lines], color=colour, linestyle=dash, linewidth=1.1)
        ax.set_title(slot, fontsize=7.5, pad=2)
        ax.tick_params(labelsize=7)
    for ax in axes.flat[len(shown) :]:
        ax.set_visible(False)
    axes[0, 0].set(ylim=(-3, 103), yticks=(0, 50, 100))
    axes[0, 0].xaxis.set_major_locator(MaxNLocator(2, integer=True))
    figure.supxlabel("epoch", fontsize=8.5)
    figure.supylabel("probability (%)", fontsize=8.5)
    handles = [Line2D([], [], color=c, linestyle=d, label=n) for n, (c, d) in style.items()]
    figure.legend(handles=handles, loc="outside upper left", ncols=min(8, len(handles)))
    return figure


@styled
def evolution(generations: Sequence[Line], label: str, before: float | None = None) -> Figure:
    """Scores of the members of every generation, and of the best so far (thesis Fig. 4.9).

    generations: lines of the journal with `scores` and `best`; label: what they are; before: score of the first of all.
    """
    figure = canvas(3.3)
    ax = quiet(figure.subplots())
    members = [(x, y) for x, line in enumerate(generations, 1) for y in map(number, line["scores"]) if y is not None]
    x, y = np.array(members or np.zeros((0, 2))).T
    ax.scatter(x, y, s=14, color=SKY, linewidths=0, alpha=0.8, label="member")
    best = series(generations, "best")
    ax.plot(np.arange(1, len(best) + 1), best, color=BLUE, label="best")
    if before is not None:
        ax.axhline(before, color=VERMILLION, linestyle="--", linewidth=1.2, label="as it was")
    ax.set(xlabel="generation", ylabel=label)
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
    legend_above(ax)
    return figure


@styled
def order(points: Mapping[str, Any], supernets: Sequence[str], metric: str) -> Figure:
    """What each supernet says (y) against the truth (x), a panel each.

    points: `true`, `true of the best`, and per supernet `said`, `said of the best`.
    """
    figure = canvas(3.2, 3.6 * len(supernets) + 0.6)
    for ax, name in zip(figure.subplots(1, len(supernets), squeeze=False)[0], supernets):
        quiet(ax, grid="both")
        said = points[name]
        ax.scatter(points["true"], said["said"], s=12, color=SKY, linewidths=0)
        ax.scatter(points["true of the best"], said["said of the best"], s=30, color=BLUE, linewidths=0)
        label = known(metric).label
        ax.set(xlabel=f"true {label}", ylabel=f"{label} by the supernet", title=f"{name} the search")
    return figure


@styled
def complexity(points: Mapping[str, Sequence[float | None]], counts: Sequence[str], metrics: Sequence[str]) -> Figure:
    """What was measured (y, a row each) against what is counted (x, a column each).

    points: values by name, in one order, None for failures.
    """
    figure = canvas(2.3 * len(metrics) + 0.3)
    grid = figure.subplots(len(metrics), len(counts), squeeze=False, sharex="col", sharey="row")
    for row, name in enumerate(metrics):
        grid[row, 0].set_ylabel(known(name).label)
        for ax, count in zip(grid[row], counts):
            quiet(ax, grid="both")
            x, y = (np.array(points[key], dtype=float) for key in (count, name))
            divisor, label = scaled(count, x[np.isfinite(x)])
            ax.scatter(x / divisor, y, s=5, color=BLUE, alpha=0.5, linewidths=0)
            if row + 1 == len(metrics):
                ax.set_xlabel(COUNTS[count] if divisor == 1.0 else label)
    return figure


@styled
def training_curves(journals: Mapping[str, Sequence[Line]]) -> Figure:
    """Training loss and quality by epoch, a line per network.

    journals: lines of `train/journal.jsonl` by the network's name.
    """
    runs = {name: epochs(lines) for name, lines in journals.items()}
    quality = next((k for lines in runs.values() for line in lines for k in line if k not in _NOT_QUALITY), None)
    panels = [("loss", "training loss"), *([(quality, known(quality).label)] if quality else [])]
    figure = canvas(3.3)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (key, label) in zip(axes, panels):
        quiet(ax)
        for i, (name, lines) in enumerate(runs.items()):
            x, y = series(lines, "epoch"), series(lines, key)
            kept = np.isfinite(y)
            style: dict[str, Any] = {"color": CYCLE[i % len(CYCLE)], "linestyle": DASHES[i % len(DASHES)]}
            ax.plot(x[kept], y[kept], marker="o" if kept.sum() == 1 else "", label=name, **style)
        ax.set_xlabel("epoch")
        ax.set_title(label)
        ax.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper left", ncols=3)
    return figure
