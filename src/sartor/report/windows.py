"""The sections about spaces as architectures: which windows were found, and what their networks are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sartor import spaces
from sartor.core import UserError, show
from sartor.quality.spaces import LANDED, distribution
from sartor.report import html, words
from sartor.report.collect import Recorded
from sartor.report.style import BLUE, GREEN, GRID, MUTED, VERMILLION, canvas, legend_above, quiet, styled
from sartor.report.values import known, number, scaled
from sartor.spaces.windows import Windows


def found(search: Recorded) -> str:
    """The windows, drawn, and what networks in them cost; nothing for a search that found a network."""
    spec, arch = search.get("space"), search.get("architecture")
    try:
        space = spaces.from_spec(spec) if spec else None
    except UserError:
        return ""
    if not isinstance(space, Windows) or not arch:
        return ""
    size, every = space.elite(arch).size, space.of.size
    whole = f"{every:,}" if every < 10**7 else f"{every:.3g}"
    caption = (
        f"The depths and widths of each stage that are in the space, of all there were: {size:,} of {whole} networks. "
        "It is in elite.json, in which every method searches. "
    )
    told = (search.get("extras") or {}).get("members") or {}
    for name, values in told.items():
        mean, low, high = (show(float(values[key]), known(name)) for key in ("mean", "lowest", "highest"))
        caption += f"Its networks have {low} to {high}, {mean} on average. "
    return html.heading("The space") + html.picture(_windows(space, arch), f"Windows of {search.name}", caption)


@styled
def _windows(space: Windows, arch: Sequence[int]) -> Figure:
    figure = canvas(0.9 + 0.36 * space.of.stages)
    for ax, kind, label in zip(figure.subplots(1, 2), (0, 1), ("blocks", "channels")):
        quiet(ax, grid="x")
        for stage in range(space.of.stages):
            slot = 2 * stage + kind
            size, most = space.sizes[slot], len(space.of.slots[slot])
            ax.barh(stage, most, height=0.5, left=0.5, color=GRID)
            ax.barh(stage, size, height=0.5, left=arch[slot] * size + 0.5, color=BLUE)
            ax.annotate(
                space.slots[slot].candidates[arch[slot]],
                (arch[slot] * size + 0.5 + size / 2, stage - 0.32),
                ha="center",
                va="bottom",
                fontsize=7,
            )
        ax.set(xlabel=label, ylim=(space.of.stages - 0.4, -0.75))
        ax.set_yticks(range(space.of.stages), [f"stage {i + 1}" for i in range(space.of.stages)])
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def evaluated(run: Recorded) -> str:
    """Networks drawn from the space beside those drawn from all, by a supernet trained for that alone."""
    points, rows = run.get("points") or {}, run.get("rows") or []
    if run.verb != "bench" or run.job.get("name") != "space" or not rows:
        return ""
    name, limit = str(run.get("cost")), float(run.get("limit"))
    metric, near = str(run.get("metric")), f"{100 * LANDED:.0f} %"
    caption = (
        f"Left: {words.noun(metric)} by a supernet trained on all of the Expanded Space, against {words.noun(name)}, "
        "of networks drawn uniformly; line: the budget. Right: the share of networks that are at least as good, of "
        f"those within {near} of the budget."
    )
    out = html.heading("What the space is worth")
    out += html.picture(
        _evaluated({str(row["of"]): points[row["of"]] for row in rows}, name, metric, limit),
        f"Networks of {run.name}",
        caption,
    )
    head = [
        "networks drawn from",
        f"{words.noun(metric)} within {near}",
        f"within {near} of the budget",
        "draws until one is",
        "beaten by, of all",
        "hypervolume",
    ]
    body = []
    for row in rows:
        mean, draws = number(row["near"]), number(row["draws"])
        body.append(
            [
                str(row["of"]),
                "–" if mean is None else words.amount(mean, metric),
                f"{100 * row['landed']:.1f} %",
                "more than were drawn" if draws is None else f"{draws:.1f}",
                f"{100 * row['beaten']:.1f} %",
                f"{row['hypervolume']:.3f}",
            ]
        )
    return out + html.table(head, body, text=(0,))


@styled
def _evaluated(points: Mapping[str, Any], name: str, metric: str, limit: float) -> Figure:
    figure = canvas(3.4)
    left, right = (quiet(ax, grid="both") for ax in figure.subplots(1, 2))
    factor, label = scaled(name, [limit])
    colours = dict(zip(points, (MUTED, BLUE, GREEN)))
    for of, some in points.items():
        cost, value = np.array(some["cost"], float), np.array(some["quality"], float)
        left.scatter(cost / factor, value, s=5, color=colours[of], linewidths=0, label=of)
        near = value[np.abs(cost / limit - 1) <= LANDED]
        better = known(metric).better == "more"
        sorted_, share = distribution(-near if better else near)
        right.step(-sorted_ if better else sorted_, share, where="post", color=colours[of], label=of)
    left.axvline(limit / factor, color=VERMILLION, linewidth=1)
    left.set(xlabel=label, ylabel=known(metric).label, xscale="log")
    right.set(xlabel=known(metric).label, ylabel="share of networks")
    legend_above(left)
    return figure
