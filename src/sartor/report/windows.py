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
from sartor.report.values import known, scaled
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
        "It is in elite.json, in which other methods search. "
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
    name, metric, limit = str(run.get("cost")), str(run.get("metric")), float(run.get("limit"))
    near = f"{100 * LANDED:.0f} %"
    caption = (
        f"Left: {words.noun(metric)} by a supernet trained on all of the Expanded Space, against {words.noun(name)}, "
        "of networks drawn uniformly; line: the budget. Right: the share of networks that are at least as good, of "
        f"those within {near} of the budget."
    )
    out = html.heading("What the space is worth")
    ordered = {str(row["of"]): points[row["of"]] for row in rows}
    out += html.picture(_evaluated(ordered, name, metric, limit), f"Networks of {run.name}", caption)
    head = [
        f"networks within {near} of the budget, of",
        "how many",
        words.noun(metric),
        "draws until there is one",
        "beaten by, of all",
        "hypervolume",
    ]
    body = [
        [
            str(row["of"]),
            str(row["networks"]),
            "–" if row["near"] is None else words.amount(float(row["near"]), metric),
            "–" if row["draws"] is None else f"{row['draws']:,.1f}",
            "–" if row["beaten"] is None else f"{100 * row['beaten']:.1f} %",
            "–" if row["hypervolume"] is None else f"{row['hypervolume']:.3f}",
        ]
        for row in rows
    ]
    note = "Beaten: by the share of networks of all, within as much of the budget, that cost no more and are no worse."
    return out + html.table(head, body, text=(0,)) + html.paragraph(note, "note")


@styled
def _evaluated(points: Mapping[str, Any], name: str, metric: str, limit: float) -> Figure:
    figure = canvas(3.4)
    left, right = (quiet(ax, grid="both") for ax in figure.subplots(1, 2))
    (factor, label), sign = scaled(name, [limit]), -1.0 if known(metric).better == "more" else 1.0
    for colour, (of, some) in zip((MUTED, BLUE, GREEN), points.items()):
        left.scatter(np.array(some["cost"]) / factor, some["quality"], s=5, color=colour, linewidths=0, label=of)
        where, share = distribution(sign * np.array(some["near quality"], float))
        right.step(sign * where, share, where="post", color=colour)
    left.axvline(limit / factor, color=VERMILLION, linewidth=1)
    left.set(xlabel=label, ylabel=known(metric).label, xscale="log")
    right.set(xlabel=f"{known(metric).label}, near the budget", ylabel="share of networks")
    legend_above(left)
    return figure
