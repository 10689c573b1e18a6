"""The section about the best networks that a search looked at, by cost and quality."""

from __future__ import annotations

from matplotlib.figure import Figure

from sartor.core import show
from sartor.report import html, words
from sartor.report.collect import Recorded
from sartor.report.style import BLUE, GREEN, VERMILLION, canvas, legend_above, quiet, styled
from sartor.report.values import known, scaled


def front(search: Recorded) -> str:
    """What none beats in both, by what the search knew of it."""
    if search.front is None or not search.front.get("front"):
        return ""
    cost, quality = str(search.front["cost"]), str(search.front["quality"])
    points = [(float(p["cost"]), float(p["quality"])) for p in search.front["front"]]
    archs = [point["architecture"] for point in search.front["front"]]
    chosen = next((p for p, arch in zip(points, archs) if arch == search.get("architecture")), None)
    limit = next((float(b["limit"]) for b in search.get("budgets") or [] if b["metric"] == cost), None)
    others = search.front.get("others", ())
    named = ", ".join(map(words.noun, (cost, *others)))
    caption = (
        f"The networks {'within the budgets ' if search.get('budgets') else ''}that none beats in "
        f"{named} and {words.noun(quality)} together; the {words.noun(quality)} is "
        f"{search.front['by']}, before the network is trained. Diamond: the network chosen."
    )
    if search.get("front"):
        caption += f" sartor train {search.path}/front/N.json trains the N-th by {words.noun(cost)}."
    drawn = _front(points, cost, quality, chosen, limit, joined=not others)
    return html.picture(drawn, f"Pareto front of {search.name}", caption, "half")


@styled
def _front(
    points: list[tuple[float, float]],
    cost: str,
    quality: str,
    chosen: tuple[float, float] | None,
    limit: float | None,
    joined: bool,
) -> Figure:
    """joined: a step line through the points, which are a front of two objectives."""
    factor, label = scaled(cost, [x for x, _ in points])
    figure = canvas(3.2, 4.6)
    ax = quiet(figure.subplots(), grid="both")
    x, y = [a / factor for a, _ in points], [b for _, b in points]
    if joined:
        ax.step(x, y, where="post", color=BLUE, linewidth=1.2)
    ax.plot(x, y, marker="o", markersize=3.5, linestyle="", color=BLUE, label="front")
    if limit is not None:
        ax.axvline(limit / factor, color=GREEN, linewidth=1.2, label=f"budget {show(limit, known(cost))}")
    if chosen is not None:
        ax.plot([chosen[0] / factor], [chosen[1]], marker="D", markersize=7, color=VERMILLION, linestyle="",
                label="chosen")  # fmt: skip
    ax.set(xlabel=label, ylabel=known(quality).label)
    ax.margins(0.08)
    legend_above(ax)
    return figure
