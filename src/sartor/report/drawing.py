"""A network drawn layer by layer: what was chosen, at which size, and what it costs."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from sartor.core import Part, SearchSpace
from sartor.report.style import GRID, INK, LARGE, MEDIUM, MUTED, SMALL, SURFACE, canvas, quiet, styled

COLUMNS = 27
_OPERATOR = re.compile(r"k(\d+)e(\d+)")
_KERNEL = re.compile(r"k(\d+)(?:e(\d+))?(?:-se)?")


@dataclass(frozen=True)
class Layer:
    """One column: name; operator as the space calls it; kernel where it has one, expansion of an inverted residual;
    shape: of its output; macs: at batch 1; chosen: by the search, not fixed by the space."""

    name: str
    operator: str
    kernel: int | None
    expansion: int | None
    shape: tuple[int, ...] | None
    macs: float | None
    chosen: bool

    @property
    def skipped(self) -> bool:
        return self.operator.startswith("skip")


def layers(space: SearchSpace, arch: Sequence[int]) -> list[Layer]:
    """The columns of the drawing: parts where the space has them (shapes and costs too), otherwise slots."""
    arch = space.canonical(arch)
    parts = space.parts(arch)
    if parts is None:
        active = zip(space.slots, arch, space.active(arch))
        return [_layer(slot.name, slot.candidates[k], None, None, True) for slot, k, on in active if on]
    from sartor.spaces.complexity import count_part

    counted = zip(parts, space.counted(arch) or parts)
    macs = {key: count_part(part)["macs"] for key, part in {own.key: part for own, part in counted}.items()}
    out = []
    for i, part in enumerate(parts):
        shape = parts[i + 1].inputs[0] if i + 1 < len(parts) else None
        if part.slot is None:
            operator = _fixed(part)
            out.append(_layer(operator, operator, shape, macs[part.key], False))
        else:
            slot = space.slots[part.slot]
            chosen, made = slot.candidates[arch[part.slot]], _fixed(part)
            if _OPERATOR.fullmatch(made) and not _OPERATOR.search(chosen):  # the slot chooses something about it
                out.append(replace(_layer(slot.name, made, shape, macs[part.key], True), operator=chosen))
            else:
                skips = "skip " if made == "skip" and not chosen.startswith("skip") else ""
                out.append(_layer(slot.name, skips + chosen, shape, macs[part.key], True))
    return out


def _fixed(part: Part) -> str:
    found = _OPERATOR.search(part.key)
    return found[0] if found else part.key.partition("-")[0].replace("keep", "fixed")


def _layer(name: str, operator: str, shape: tuple[int, ...] | None, macs: float | None, chosen: bool) -> Layer:
    found = _KERNEL.fullmatch(operator)
    kernel, expansion = (int(found[1]), int(found[2]) if found[2] else None) if found else (None, None)
    return Layer(name, operator, kernel, expansion, shape, macs, chosen)


@styled
def architecture(space: SearchSpace, arch: Sequence[int]) -> Figure:
    """The network from input to output: kernel is height and shade, expansion is width, a skip is a thin line, SE
    squeeze-excite.

    Over it, per stage, output channels and resolution; under it each layer's share of the multiply-accumulates.
    """
    columns = layers(space, arch)
    total = sum(layer.macs or 0.0 for layer in columns)
    rows = math.ceil(len(columns) / COLUMNS)
    per_row = max(math.ceil(len(columns) / rows), 12)
    heights = ([2.1, 0.8] if total else [2.1]) * rows
    figure = canvas(sum(heights) + 0.25)
    figure.get_layout_engine().set(hspace=0.12 if rows > 1 else 0.0)  # type: ignore[union-attr,call-arg]
    grid = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    widest = max((layer.expansion or 1 for layer in columns), default=1)
    largest = max((layer.kernel or 1 for layer in columns), default=1)
    peak = max((layer.macs or 0.0 for layer in columns), default=0.0) / total * 100 if total else 0.0
    for row in range(rows):
        shown = columns[row * per_row : (row + 1) * per_row]
        step = len(heights) // rows
        _blocks(grid[row * step], shown, max(widest, 6), max(largest, 7), per_row)
        if total:
            _shares(grid[row * step + 1], shown, total, peak, per_row)
    return figure


def _blocks(ax: Axes, shown: Sequence[Layer], widest: int, largest: int, per_row: int) -> None:
    ax.set_axis_off()
    ax.set(xlim=(-1.6, per_row - 0.4), ylim=(-1.12, 1.1))
    ax.plot([-0.6, len(shown) - 0.4], [0, 0], color=MUTED, linewidth=1.0, zorder=1)
    for x, layer in enumerate(shown):
        if layer.skipped:
            ax.text(x, -0.66, "skip", color=MUTED, fontsize=7.5, ha="center", va="center")
            continue
        width = 0.84 if layer.expansion is None else 0.2 + 0.68 * layer.expansion / widest
        height = 1.0 if layer.kernel is None else layer.kernel / largest
        shade = (
            (GRID if layer.operator == "keep" else MEDIUM)
            if layer.kernel is None
            else {3: SMALL, 5: MEDIUM}.get(layer.kernel, LARGE if layer.kernel > 5 else SMALL)
        )
        if not layer.chosen:
            width, shade = (0.5, GRID) if layer.kernel is None else (width, GRID)
        box = FancyBboxPatch(
            (x - width / 2, -height / 2),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=0.06",
            mutation_aspect=0.5,
            facecolor=shade,
            edgecolor=MUTED if shade == GRID else SURFACE,
            linewidth=0.7,
            zorder=2,
        )
        ax.add_patch(box)
        if layer.kernel is None:
            ax.text(x, 0, layer.operator[:16], fontsize=7.5, rotation=90, ha="center", va="center", zorder=3)
        else:
            if layer.operator.endswith("-se"):
                ink = INK if shade in (SMALL, GRID) else SURFACE
                ax.text(x, 0, "SE", color=ink, fontsize=7.5, ha="center", va="center", zorder=3)
            ax.text(x, -0.66, str(layer.kernel), fontsize=8.5, ha="center", va="center")
            ax.text(x, -0.84, str(layer.expansion or ""), fontsize=8.5, ha="center", va="center")
    if any(layer.kernel for layer in shown):
        ax.text(-0.75, -0.66, "kernel", color=MUTED, fontsize=8, ha="right", va="center")
    if any(layer.expansion for layer in shown):
        ax.text(-0.75, -0.84, "expansion", color=MUTED, fontsize=8, ha="right", va="center")
    _stages(ax, shown)
    for x, layer in enumerate(shown):
        if layer.chosen:
            number = re.sub(r"^\D+", "", layer.name) or layer.name
            ax.text(x, -1.06, number, color=MUTED, fontsize=7.5, ha="center", va="center")
    if any(layer.chosen for layer in shown):
        ax.text(-0.75, -1.06, "layer", color=MUTED, fontsize=8, ha="right", va="center")


def _stages(ax: Axes, shown: Sequence[Layer]) -> None:
    """A bracket over consecutive layers with the same output, with its channels and resolution."""
    start = 0
    for shape, group in groupby(shown, key=lambda layer: layer.shape):
        count = len(list(group))
        if shape is not None:
            ax.plot([start - 0.42, start + count - 0.58], [0.66, 0.66], color=MUTED, linewidth=1.0)
            middle, channels = start + (count - 1) / 2, str(shape[0])
            ax.text(middle, 0.94, f"{channels} ch" if count > 1 else channels, fontsize=8.5, ha="center", va="bottom")
            size = "×".join(map(str, shape[1:]))
            ax.text(middle, 0.74, size, color=MUTED, fontsize=7.5, ha="center", va="bottom")
        start += count


def _shares(ax: Axes, shown: Sequence[Layer], total: float, peak: float, per_row: int) -> None:
    quiet(ax, grid="")
    share = [(layer.macs or 0.0) / total * 100 for layer in shown]
    ax.bar(range(len(shown)), share, width=0.7, color=MUTED, alpha=0.55)
    for x, value in enumerate(share):
        if value >= 0.5:
            ax.text(x, value + 0.03 * peak, f"{value:.0f}", fontsize=7.5, color=INK, ha="center", va="bottom")
    ax.set(xlim=(-1.6, per_row - 0.4), ylim=(-0.03 * peak, 1.25 * peak), xticks=[], yticks=[])
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.plot([-0.6, len(shown) - 0.4], [0, 0], color=MUTED, linewidth=0.7)
    ax.text(-0.75, 0.4 * peak, "share of\nMACs (%)", color=MUTED, fontsize=8, ha="right", va="center")
