"""Colours, type and output that all figures share. No figure touches matplotlib's global state for good."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Sequence
from html import escape
from typing import Any, ParamSpec

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

P = ParamSpec("P")

WIDTH = 8.7  # inches: a full column of the page
INK, MUTED, GRID, SURFACE = "#1f2328", "#5b6570", "#dfe3e8", "#fefefe"
# Okabe and Ito's palette, which the common colour blindnesses keep apart.
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"
CYCLE = (VERMILLION, BLUE, GREEN, PURPLE, ORANGE, SKY)
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
SMALL, MEDIUM, LARGE = "#a9cdea", "#4b93c8", "#0d4f86"

# What the page calls these colours: it redefines them for dark screens, so that figures follow.
VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    SURFACE: "--surface",
    BLUE: "--blue",
    VERMILLION: "--vermillion",
    GREEN: "--green",
    PURPLE: "--purple",
    ORANGE: "--orange",
    SKY: "--sky",
    SMALL: "--small",
    MEDIUM: "--medium",
    LARGE: "--large",
}

_RC: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.5,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.labelsize": 8.5,
    "axes.labelcolor": INK,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "legend.columnspacing": 1.3,
    "lines.linewidth": 1.6,
    "svg.fonttype": "none",
}


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Run a figure function with the report's defaults, whatever the caller's are."""

    def call(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with matplotlib.rc_context(_RC):
            return draw(*args, **kwargs)

    call.__name__, call.__doc__, call.__wrapped__ = draw.__name__, draw.__doc__, draw  # type: ignore[attr-defined]
    return call


def canvas(height: float, width: float = WIDTH) -> Figure:
    """An empty figure of the page's width."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06)  # type: ignore[union-attr,call-arg]
    return figure


def quiet(ax: Axes, *, grid: str = "y") -> Axes:
    """Axes with light grid lines behind the data and colours that do not depend on later defaults."""
    if grid:
        ax.grid(True, axis=grid, color=GRID, linewidth=0.7)  # type: ignore[arg-type]
    ax.set_axisbelow(True)
    ax.tick_params(colors=MUTED, labelsize=8, length=2.5, width=0.7)
    return ax


def legend_above(ax: Axes, columns: int = 5) -> None:
    """A legend in one line over the axes, where it covers nothing."""
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="lower left", bbox_to_anchor=(-0.005, 1.0), ncols=columns, borderaxespad=0.2, borderpad=0.2)


def label_points(
    ax: Axes,
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    colours: Sequence[str],
    avoid: Sequence[tuple[float, float]] = (),
) -> None:
    """Name every point beside it, each where it covers no earlier name, no point, nothing to avoid and no edge."""
    figure = ax.figure
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    taken = [tuple(ax.transData.transform(p)) for p in (*points, *avoid)]
    boxes: list[Any] = []
    around = [
        (reach * x, reach * y, side)
        for reach in (1, 2.2, 3.4)
        for x, y, side in (
            (8, 0, "left"),
            (-8, 0, "right"),
            (0, 10, "center"),
            (0, -10, "center"),
            (8, 9, "left"),
            (8, -9, "left"),
            (-8, 9, "right"),
            (-8, -9, "right"),
        )
    ]
    for point, name, colour in zip(points, names, colours):
        best: tuple[float, Any, Any] | None = None
        for x, y, side in around:
            text = ax.annotate(
                name, point, (x, y), textcoords="offset points", ha=side, va="center", color=colour, fontsize=8.5
            )
            box = text.get_window_extent()
            outside = not (ax.bbox.x0 <= box.x0 and box.x1 <= ax.bbox.x1 and ax.bbox.y0 <= box.y0 <= ax.bbox.y1)
            cost = sum(box.overlaps(b) for b in boxes) + sum(box.padded(3).contains(*t) for t in taken) + 2 * outside
            text.remove()
            if best is None or cost < best[0]:
                best = (cost, (x, y, side), box)
        assert best is not None
        x, y, side = best[1]
        boxes.append(best[2])
        ax.annotate(name, point, (x, y), textcoords="offset points", ha=side, va="center", color=colour, fontsize=8.5)


def svg(figure: Figure, title: str) -> str:
    """The figure as one `<svg>` element to be put inside a page: text stays text, colours follow the page."""
    salt = hashlib.sha256(title.encode()).hexdigest()[:10]  # ids inside must differ between figures of one page
    buffer = io.StringIO()
    with matplotlib.rc_context({**_RC, "svg.hashsalt": salt}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns:xlink="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r'<g id="[^"]*">', "<g>", text)
    text = re.sub(r"<!--.*?-->\n?", "", text, flags=re.DOTALL)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    head = f'<svg role="img" aria-label="{escape(title, quote=True)}"'
    return re.sub(
        r'<svg( height="[^"]*"| width="[^"]*"| version="[^"]*")*', head, re.sub(r"(?<=[ >])\n+", "\n", text), count=1
    )
