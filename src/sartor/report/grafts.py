"""Sections about a network that was cut down: what became of its blocks, and what the others would have been."""

from __future__ import annotations

from matplotlib.figure import Figure

from sartor.core import show
from sartor.report import html, words
from sartor.report.collect import Recorded
from sartor.report.style import BLUE, GREEN, VERMILLION, canvas, legend_above, quiet, styled
from sartor.report.values import known, number, scaled


def front(search: Recorded) -> str:
    """The best networks that the search looked at, by what it predicts of them."""
    if search.front is None or not search.front.get("front"):
        return ""
    cost, quality = str(search.front["cost"]), str(search.front["quality"])
    points = [(float(p["cost"]), float(p["quality"])) for p in search.front["front"]]
    chosen = number((search.get("predicted") or {}).get(cost)), number((search.get("extras") or {}).get("predicted"))
    limit = next((float(b["limit"]) for b in search.get("budgets") or [] if b["metric"] == cost), None)
    caption = (
        f"The networks within the budgets that none beats in both, by predicted {words.noun(cost)} and by the "
        f"{words.noun(quality)} that is predicted from the grades of the proxy, before the network is trained. "
        "Diamond: the network chosen."
    )
    drawn = _front(points, cost, quality, chosen, limit)
    return html.picture(drawn, f"Pareto front of {search.name}", caption, "half")


@styled
def _front(
    points: list[tuple[float, float]],
    cost: str,
    quality: str,
    chosen: tuple[float | None, float | None],
    limit: float | None,
) -> Figure:
    factor, label = scaled(cost, [x for x, _ in points])
    figure = canvas(3.2, 4.6)
    ax = quiet(figure.subplots(), grid="both")
    x, y = [a / factor for a, _ in points], [b for _, b in points]
    ax.step(x, y, where="post", color=BLUE, linewidth=1.2)
    ax.plot(x, y, marker="o", markersize=3.5, linestyle="", color=BLUE, label="front")
    if limit is not None:
        ax.axvline(limit / factor, color=GREEN, linewidth=1.2, label=f"budget {show(limit, known(cost))}")
    if chosen[0] is not None and chosen[1] is not None:
        ax.plot([chosen[0] / factor], [chosen[1]], marker="D", markersize=7, color=VERMILLION, linestyle="",
                label="chosen")  # fmt: skip
    ax.set(xlabel=f"predicted {label}", ylabel=f"predicted {known(quality).label}")
    ax.margins(0.08)
    legend_above(ax)
    return figure


def blocks(run: Recorded) -> str:
    """What became of each block, and where time went before and after."""
    became = run.get("blocks")
    if run.verb != "compress" or not became:
        return ""
    out = html.heading("What became of the blocks")
    rows = [[str(row["block"]), str(row["became"])] for row in became]
    changed = [i for i, (_, word) in enumerate(rows) if not word.startswith(("kept", "refused"))]
    out += html.table(["block", "what became of it"], rows, chosen=changed, text=(0, 1))
    profile = run.get("profile_ms") or {}
    before, after = profile.get("before") or {}, profile.get("after") or {}
    if before or after:
        kinds = sorted({*before, *after}, key=lambda kind: -max(before.get(kind, 0.0), after.get(kind, 0.0)))
        spent_by = [[kind, *(f"{spent.get(kind, 0.0):.3g}" for spent in (before, after))] for kind in kinds]
        spent_by.append(["together", *(f"{sum(spent.values()):.3g}" for spent in (before, after))])
        out += html.heading("Where time goes")
        out += html.table(["kind of layer", "before (ms)", "after (ms)"], spent_by, chosen=[len(spent_by) - 1])
        out += html.paragraph(
            f"Of one inference on {run.get('target')}, as the runtime calls its layers after what it fuses; medians "
            "of several. Watching each layer costs time: together they take longer than the latency.",
            "note",
        )
    return out
