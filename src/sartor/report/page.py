"""One self-contained HTML page about some runs: no scripts, no links, readable in light, dark and on paper."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path

from sartor.core import UserError, show
from sartor.report import devices, evidence, fronts, grafts, html, sections, windows, words
from sartor.report.collect import Recorded, collect, is_parent, order
from sartor.report.values import known
from sartor.report.words import Trained
from sartor.runs import write_atomic


def report(paths: Sequence[Path], out: Path) -> Path:
    """Write the page about the runs at `paths`, and the runs one level below them, to `out`; returns `out`.

    What a run lacks is left out, and the page says so. Raises UserError for a path that is no run, a damaged run, or
    a place that cannot be written.
    """
    runs = order(collect(paths))
    text = page(runs)
    try:
        write_atomic(Path(out), text.encode())
    except OSError as error:
        raise UserError(f"cannot write {out} ({error.strerror}); give another --out.") from None
    return Path(out)


def headline(paths: Sequence[Path]) -> str:
    """The sentence on top of the page."""
    runs = order(collect(paths))
    work = [run for run in runs if not is_parent(run, runs)]
    return _headline(work, [run for run in work if run.verb == "search"], words.trained(work))[0]


def page(runs: Sequence[Recorded]) -> str:
    """The whole page as text."""
    work = [run for run in runs if not is_parent(run, runs)]
    networks, searches = words.trained(work), [run for run in work if run.verb == "search"]
    title, lede = _headline(work, searches, networks)
    style = resources.files("sartor.report").joinpath("page.css").read_text()
    names = sorted({run.name.partition("/")[0] for run in runs})
    body = [
        f'<p class="eyebrow"><b>sartor</b> · {escape(", ".join(names))}</p>',
        html.heading(title, 1),
        *(html.paragraph(text, "lede") for text in lede),
    ]
    for search in searches:
        if len(searches) > 1:
            body.append(html.heading(search.name))
        body += [
            sections.search_tiles(search, networks),
            windows.found(search) or sections.architecture(search),
            sections.trajectory(search),
            fronts.front(search),
        ]
    body += [grafts.blocks(run) for run in runs]
    body.append(sections.tradeoff(work, networks))
    body += [devices.scaling(run) for run in work] + [devices.grouping(run) for run in work]
    body += [devices.dynamic(run) for run in work]
    body += [evidence.order(run) for run in work] + [evidence.complexity(run) for run in work]
    body += [windows.evaluated(run) for run in work]
    body += [evidence.predictor(run) for run in work]
    body += [sections.curves(work), sections.exports(work), *_absent(work, networks)]
    body += [evidence.conditions(work), evidence.settings(runs)]
    versions = sorted({str(run.get("sartor_version")) for run in runs if run.get("sartor_version")})
    body.append(
        f"<footer>{escape('Written by sartor ' + ', '.join(versions) if versions else 'Written by sartor')}.</footer>"
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body>\n</html>\n"
    )


def _headline(
    runs: Sequence[Recorded], searches: Sequence[Recorded], networks: Sequence[Trained]
) -> tuple[str, list[str]]:
    """The sentence on top, and the ones under it."""
    if len(searches) == 1:
        return words.verdict(searches[0], networks), [words.facts(searches[0], networks)]
    if searches:
        held = sum(words.kept(s, "predicted") is True and words.kept(s, "measured") is not False for s in searches)
        lede = [f"{s.name}: {words.verdict(s, networks)}. {words.facts(s, networks)}" for s in searches]
        return f"{len(searches)} searches, {held} of them within budget", lede
    if networks:
        best = max(networks, key=lambda t: words.advantage(t, networks[0]))
        quality = words.noun(best.metric)
        many = f", the best of {len(networks)} networks" if len(networks) > 1 else ""
        return f"{best.name} reaches {words.amount(best.value, best.metric)} {quality}{many}", []
    for run in runs:
        factor, front = run.get("factor"), run.get("front")
        if run.verb == "adapt" and front:
            ends = " to ".join(show(front[i]["latency_ms"], known("latency_ms")) for i in (0, -1))
            return f"{run.get('networks'):,} networks in one", [
                f"Each is made of blocks that are exchanged. The best of them, by the tables, take {ends}."
            ]
        if run.verb == "scale" and factor is not None:
            said = f"Widened {factor:g} times at the same latency" if factor > 1 else "No wider at the same latency"
            return said, [f"Measured on {run.get('target')}."]
        if run.verb == "targets" and run.get("groups"):
            count = len(run.get("groups"))
            return f"{len(run.get('devices'))} devices in {count} group{'s' if count > 1 else ''}", []
        if run.verb == "study" and run.get("rows"):
            row = run.get("rows")[0]
            told = "nothing" if row["tau"] is None else f"Kendall's tau {row['tau']:.2f}"
            return f"{words.noun(row['count'])} and {words.noun(row['metric'])}: {told}", [
                f"Of {run.get('networks')} networks, measured on {run.get('target')}."
            ]
        if run.fit is not None:
            of, count = words.noun(str(run.fit.get("metric"))), run.fit.get("samples", "an unknown number of")
            return f"Predictor {run.fit.get('default')} of {of}, fitted to {count} measured networks", []
    return f"What is on record of {len(runs)} run{'s' if len(runs) > 1 else ''}", []


def _absent(runs: Sequence[Recorded], networks: Sequence[Trained]) -> list[str]:
    """One line for each kind of evidence that none of the runs has."""
    said = []
    if not any(run.verb == "search" for run in runs):
        said.append("There is no search among these runs: no trajectory and no found network.")
    if not any(run.fit is not None for run in runs):
        said.append("None of these runs fitted a predictor: its quality is not shown here.")
    if not networks:
        said.append("No trained network is among these runs: no accuracy and no training curves.")
    about_devices = all(run.verb in ("targets", "scale", "adapt", "study") for run in runs)
    return [html.heading("Not in these runs"), *map(html.missing, said)] if said and not about_devices else []
