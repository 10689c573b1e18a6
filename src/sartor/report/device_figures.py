"""Figures about devices: the Comfort Zone, the roofline, which devices agree, networks that adapt to one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from sartor.report.style import (
    BLUE,
    DASHES,
    GREEN,
    INK,
    MUTED,
    SURFACE,
    VERMILLION,
    canvas,
    label_points,
    legend_above,
    quiet,
    styled,
)
from sartor.report.values import Line, known

NAMED = 4  # layers of a roofline that are called by name: those that take longest


@styled
def comfort_zone(steps: Sequence[Line], factor: float) -> Figure:
    """Latency and arithmetic intensity against the width factor; the accepted range is shaded.

    steps: `factor`, `latency_ms`, `ratio`, `allowed`, `intensity`, `macs` each.
    """
    x = np.array([s["factor"] for s in steps], dtype=np.float64)
    figure = canvas(2.9)
    left, right = figure.subplots(1, 2)
    for ax in (quiet(left), quiet(right)):
        if factor > 1.0:
            ax.axvspan(1.0, factor, color=GREEN, alpha=0.15, linewidth=0)
        ax.set_xlabel("width factor")
        ax.xaxis.set_major_locator(MaxNLocator(6))
    ratio = np.array([s["ratio"] for s in steps])
    macs = np.array([s["macs"] for s in steps]) / float(steps[0]["macs"])
    left.plot(x, [s["allowed"] for s in steps], color=GREEN, drawstyle="steps-mid", label="counts as equal")
    left.plot(x, macs, color=MUTED, linestyle=DASHES[1], linewidth=1.2, label="if it rose as MACs do")
    left.plot(x, ratio, color=BLUE, marker="o", markersize=4, label="measured")
    left.set_ylabel("latency relative to the unscaled network")
    left.set_ylim(min(0.9, 0.97 * ratio.min()), 1.15 * max(ratio.max(), 1.05))
    right.plot(x, [s["intensity"] for s in steps], color=VERMILLION, marker="o", markersize=4)
    right.set_ylabel("arithmetic intensity (MACs/byte)")
    legend_above(left, columns=3)
    return figure


@styled
def roofline(roof: Line) -> Figure:
    """Layers of a network under the roofs of a device; the size of a mark is the layer's share of the time.

    roof: `peak_gmacs_per_s`, `memory_gb_per_s`, `cache_gb_per_s`, and `layers` with `intensity`, `rate`, `latency_ms`,
    `times`, `name`.
    """
    layers = roof["layers"]
    peak = float(roof["peak_gmacs_per_s"])
    intensity = np.array([layer["intensity"] for layer in layers])
    rate = np.array([layer["rate"] for layer in layers])
    time = np.array([layer["latency_ms"] * layer["times"] for layer in layers])
    figure = canvas(3.8)
    ax = quiet(figure.subplots(), grid="both")
    low = min(intensity.min(), peak / float(roof["cache_gb_per_s"])) / 2
    high = max(intensity.max(), peak / float(roof["memory_gb_per_s"])) * 2
    ax.set(xscale="log", yscale="log", xlim=(low, high), ylim=(0.5 * rate.min(), 2.2 * peak))
    x = np.geomspace(low, high, 200)
    for bandwidth, label, dashes in (
        (float(roof["memory_gb_per_s"]), "memory", DASHES[0]),
        (float(roof["cache_gb_per_s"]), "cache", DASHES[1]),
    ):
        said = f"{label} {bandwidth:.3g} GB/s"
        ax.plot(x, np.minimum(peak, x * bandwidth), color=INK, linestyle=dashes, linewidth=1.3, zorder=2, label=said)
    ax.annotate(f"arithmetic {peak:.3g} GMACs/s", (high, peak), (-4, 5), textcoords="offset points",
                color=INK, fontsize=8, ha="right")  # fmt: skip
    sizes = 12 + 400 * time / time.sum()
    ax.scatter(intensity, rate, s=sizes, color=BLUE, alpha=0.55, edgecolors=SURFACE, linewidths=0.6, zorder=3)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_locator(NullLocator())
    most = np.argsort(-time)[:NAMED]
    names = [str(layers[i]["name"]) for i in most]
    label_points(ax, [(float(intensity[i]), float(rate[i])) for i in most], names, [INK] * len(names))
    ax.set_xlabel("arithmetic intensity (MACs/byte)")
    ax.set_ylabel("rate (GMACs/s)")
    legend_above(ax)
    return figure


@styled
def agreement(found: Line) -> Figure:
    """Kendall's tau and R^2 through the origin for every pair of devices, groups framed.

    found: `devices`, `kendall`, `r2`, `groups` of `workflow.grouping.group_devices`.
    """
    order = [name for group in found["groups"] for name in group]
    index = [found["devices"].index(name) for name in order]
    n = len(order)
    figure = canvas(1.6 + 0.36 * n)
    titles = (("kendall", "Kendall's tau"), ("r2", "R² of a line through the origin"))
    for ax, (key, title) in zip(figure.subplots(1, 2, sharey=True), titles):
        matrix = np.array(found[key], dtype=np.float64)[np.ix_(index, index)]
        shown: Any = ax.imshow(np.clip(matrix, 0, 1), cmap="Blues", vmin=0, vmax=1.35)
        shown.set_rasterized(False)
        for i in range(n):
            for j in range(n):
                ax.text(j, i, f"{matrix[i, j]:.2f}", ha="center", va="center", fontsize=7, color=INK)
        start = 0
        for group in found["groups"]:
            size = len(group)
            a, b = start - 0.5, start + size - 0.5
            ax.plot([a, b, b, a, a], [a, a, b, b, a], color=VERMILLION, linewidth=1.6, clip_on=False)
            start += size
        ax.set_xticks(range(n), [str(i + 1) for i in range(n)])
        ax.set_yticks(range(n), [f"{_short(name)}   {i + 1}" for i, name in enumerate(order)])
        ax.tick_params(length=0, labelsize=7.5)
        ax.spines[:].set_visible(False)
        ax.set_title(title)
    return figure


@styled
def dynamic(
    front: Sequence[Line], found: Line, limit_ms: float, metric: str, slots: Mapping[str, Sequence[str]]
) -> Figure:
    """Quality against latency of the networks that a dynamic network switches between, and the blocks of each.

    front: `latency_ms`, `quality`, `blocks` (a level per slot) each; found: `latency_ms` and the metric; slots: names
    of the blocks by slot.
    """
    figure = canvas(3.1)
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1.0))
    quiet(left, grid="both")
    x = [row["latency_ms"] for row in front]
    left.plot(x, [row["quality"] for row in front], color=BLUE, marker="o", markersize=4, drawstyle="steps-post",
              label="best within, predicted")  # fmt: skip
    graded = [row.get("graded") for row in front]
    if None not in graded:
        left.plot(x, graded, color=INK, marker="x", linestyle="", markersize=5, label="graded")
    left.plot([found["latency_ms"]], [found[metric]], color=VERMILLION, marker="D", linestyle="", label="found")
    if min(x) <= limit_ms <= 1.2 * max(x):
        left.axvline(limit_ms, color=GREEN, linewidth=1.2, label=f"limit {limit_ms:.3g} ms")
    left.set_xlabel("latency (ms)")
    left.set_ylabel(known(metric).label)
    legend_above(left, columns=4)
    levels = np.array([row["blocks"] for row in front], dtype=np.float64).T
    share = levels / np.array([[max(len(blocks) - 1, 1)] for blocks in slots.values()])
    shown: Any = right.imshow(share, cmap="Blues", vmin=-0.15, vmax=1.3, aspect="auto")
    shown.set_rasterized(False)
    right.set_yticks(range(len(slots)), list(slots))
    right.set_xticks(range(len(front)), [f"{value:.3g}" for value in x], rotation=90 if len(front) > 6 else 0)
    right.tick_params(length=0, labelsize=7.5)
    right.spines[:].set_visible(False)
    right.set_xlabel("latency of the network (ms)")
    return figure


def _short(name: str) -> str:
    """A name that fits beside a matrix."""
    return name if len(name) <= 34 else f"{name[:16]}…{name[-17:]}"
