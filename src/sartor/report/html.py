"""Pieces of HTML. Whatever comes from a run is escaped here."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from matplotlib.figure import Figure

from sartor.report.style import svg


@dataclass(frozen=True)
class Tile:
    """A key number: label, value with unit, a line under it, and whether it is good or bad news."""

    label: str
    value: str
    sub: str = ""
    news: str = ""


def paragraph(text: str, kind: str = "") -> str:
    return f"<p{_class(kind)}>{_prose(text)}</p>"


def missing(text: str) -> str:
    """A line that says what the page lacks, and why."""
    return paragraph(text, "missing")


def heading(text: str, level: int = 2) -> str:
    return f"<h{level}>{_prose(text)}</h{level}>"


def tiles(found: Sequence[Tile]) -> str:
    """Key numbers in a row that wraps."""
    cells = []
    for tile in found:
        number, _, unit = tile.value.partition(" ")
        value = escape(number) + (f" <small>{escape(unit)}</small>" if unit else "")
        cells.append(
            f'<div class="tile {tile.news}"><dt>{escape(tile.label)}</dt><dd class="value">{value}</dd>'
            + (f'<dd class="sub">{escape(tile.sub)}</dd>' if tile.sub else "")
            + "</div>"
        )
    return f'<dl class="tiles">{"".join(cells)}</dl>' if cells else ""


def picture(figure: Figure, title: str, caption: str, kind: str = "") -> str:
    """A figure as inline SVG with its caption; title: what a screen reader says."""
    return (
        f'<figure><div class="figure {kind}">{svg(figure, title)}</div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def table(
    head: Sequence[str], rows: Sequence[Sequence[Any]], *, chosen: Sequence[int] = (), text: Sequence[int] = (0,)
) -> str:
    """A table; columns not in `text` are numbers, rows in `chosen` are emphasised."""

    def cell(tag: str, column: int, value: Any) -> str:
        return f"<{tag}{_class('' if column in text else 'n')}>{escape(str(value))}</{tag}>"

    top = "".join(cell("th", i, name) for i, name in enumerate(head))
    body = "".join(
        f"<tr{_class('chosen' if r in chosen else '')}>{''.join(cell('td', i, v) for i, v in enumerate(row))}</tr>"
        for r, row in enumerate(rows)
    )
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def settings(values: Mapping[str, Any]) -> str:
    """Name and value of everything in a nested object, one a line, in the order given."""
    rows = "".join(f"<tr><td>{escape(k)}</td><td>{escape(v)}</td></tr>" for k, v in _flat(values))
    return f'<table class="settings"><tbody>{rows}</tbody></table>'


def folded(summary: str, aside: str, inside: str) -> str:
    """Something to open."""
    return f"<details><summary>{escape(summary)} <span>{escape(aside)}</span></summary>{inside}</details>"


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    out = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            out += _flat(value, f"{name}.")
        else:
            out.append((name, value if isinstance(value, str) else _plain(value)))
    return out


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    return json.dumps(value, ensure_ascii=False)


def _prose(text: str) -> str:
    """Escaped, with numbers kept on one line with their units."""
    return re.sub(r"(?<=\d) (?=%|(?:ms|mJ|[kMG]?MACs)\b)", "\u00a0", escape(text))


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
