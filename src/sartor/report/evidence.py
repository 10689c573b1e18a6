"""What the numbers rest on: the predictor's quality, the conditions of measurement, every setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sartor.core import show
from sartor.report import figures, html
from sartor.report.collect import Recorded, is_parent
from sartor.report.values import known, number
from sartor.report.words import noun


def predictor(run: Recorded) -> str:
    """Predicted against measured, and quality beside ridge."""
    fit = run.fit
    if fit is None:
        return ""
    name, unit = str(fit.get("metric", "")), str(fit.get("unit", ""))
    word = noun(name)
    out = html.heading(f"How well {word or 'cost'} is predicted")
    default, floor, rows = str(fit.get("default", "")), number(fit.get("noise_floor")), fit.get("rows") or []
    noise = "it was not measured" if floor is None else f"{floor:.3g} {unit}"
    points = fit["points"]
    if points["measured"] and points["predicted"]:
        count = len(figures.shown_predictors(fit))
        caption = (
            f"{len(points['measured'])} held-out networks. Wide band: within 5 % of the measured value. "
            f"Green band: noise floor, the RMSE between two measuring passes ({noise})."
        )
        kind = {1: "half", 2: "two"}.get(count, "")
        out += html.picture(figures.predicted_measured(fit), f"Predicted against measured {word}", caption, kind)
    else:
        out += html.missing(f"{run.name} holds no held-out points, so predicted against measured cannot be drawn.")
    if not rows:
        return out + html.missing(f"{run.name} holds no figures of quality.")
    body, chosen = [], []
    for i, row in enumerate(rows):
        if str(row.get("predictor")) == default:
            chosen.append(i)
        region = {"all": "all held-out", "near": "near the budget"}.get(str(row.get("region")), str(row.get("region")))
        cells = [f"{row.get('predictor')}{' (used)' if i in chosen else ''}", region, _number(row.get("n"), ".0f")]
        cells += [_number(row.get(k), ".3f") for k in ("spearman", "kendall")]
        cells += [_number(row.get(k), ".3g") for k in ("rmse", "mae")]
        body.append([*cells, *(_number(row.get(k), ".0f", " %") for k in ("within_5", "within_10"))])
    in_unit = f" ({unit})" if unit else ""
    head = ["predictor", "networks", "n", "Spearman", "Kendall", f"RMSE{in_unit}", f"MAE{in_unit}"]
    note = "Ridge, additive over layers, is the baseline every other predictor has to beat on networks it has not seen."
    return (
        out
        + html.table([*head, "within 5 %", "within 10 %"], body, chosen=chosen, text=(0, 1))
        + html.paragraph(note, "note")
    )


def order(run: Recorded) -> str:
    """What supernets say of networks beside what is true of them."""
    points, rows = run.get("points") or {}, run.get("rows") or []
    if run.verb != "bench" or run.job.get("name") != "order" or not rows:
        return ""
    word, best = noun(str(run.get("metric"))), run.get("best")
    truth = run.job.get("truth") or {}
    of = (
        f"column {truth['column']} of a table"
        if "column" in truth
        else f"training each for {truth.get('epochs')} epochs"
    )
    caption = (
        f"What the supernet says of a network against its {word}, by {of}. Large dots: the {best} best, whose order is "
        "the local one."
    )
    out = html.heading("How well the order of networks is kept")
    out += html.picture(figures.order(points, [str(row["supernet"]) for row in rows], str(run.get("metric"))),
                        "Order of networks", caption, "two" if len(rows) > 1 else "half")  # fmt: skip
    body = [[f"{row['supernet']} the search", *(_tau(row[scope]) for scope in ("global", "local"))] for row in rows]
    head = ["supernet", "Kendall's tau over all", f"among the {best} best"]
    note = "In brackets: 95 % of resampled networks."
    return out + html.table(head, body, text=(0,)) + html.paragraph(note, "note")


def complexity(run: Recorded) -> str:
    """What counts of networks tell of what was measured of them."""
    points, rows = run.get("points") or {}, run.get("rows") or []
    if run.verb != "study" or not rows:
        return ""
    metrics, counts = (list(dict.fromkeys(str(row[key]) for row in rows)) for key in ("metric", "count"))
    costs = " and ".join(noun(name) for name in metrics)
    caption = (
        f"Each dot is one of {run.get('networks')} networks, drawn uniformly: what is counted of it against {costs}."
    )
    out = html.heading(f"What counts tell of {costs}")
    out += html.picture(figures.complexity(points, counts, metrics), f"Counts against {costs}", caption)
    taus = {(str(row["count"]), str(row["metric"])): _tau(row) for row in rows}
    body = [[figures.COUNTS.get(count, count), *(taus[count, name] for name in metrics)] for count in counts]
    head = ["Kendall's tau of", *(f"and {noun(name)}" for name in metrics)]
    note = (
        "In brackets: 95 % of resampled networks. Counted are convolutions and matrix products, at four bytes a number."
    )
    return out + html.table(head, body, text=(0,)) + html.paragraph(note, "note")


def _tau(found: Mapping[str, Any]) -> str:
    if number(found.get("tau")) is None:
        return "–"
    return f"{found['tau']:.2f} ({found['low']:.2f} to {found['high']:.2f})"


def conditions(runs: Sequence[Recorded]) -> str:
    """Where and how costs were measured."""
    out = html.heading("Conditions of measurement")
    targets: dict[str, list[str]] = {}
    for run in runs:
        target = run.get("target") or (run.fit or {}).get("target") or run.job.get("target")
        if isinstance(target, str):
            targets.setdefault(target, []).append(run.name)
    if not targets and all(run.verb == "targets" for run in runs):
        return ""
    if not targets:
        return out + html.missing("These runs name no target, so what their costs were measured on is not known.")
    out += html.table(["target", "runs"], [[t, ", ".join(names)] for t, names in targets.items()], text=(0, 1))
    if len(targets) > 1:
        out += html.paragraph("Costs measured on different targets cannot be compared with each other.", "note")
    floors = {
        run.name: f"{show(floor, known(str(run.fit.get('metric'))))}, RMSE between two passes"
        for run in runs
        if run.fit is not None and (floor := number(run.fit.get("noise_floor"))) is not None
    }
    counts = {
        run.name: f"{samples:.0f} networks fitted on"
        + ("" if (failed := number(run.fit.get("failed"))) is None else f", {failed:.0f} failed")
        + ("" if not (far := number(run.fit.get("left_out"))) else f", {far:.0f} left out as far from the limit")
        for run in runs
        if run.fit is not None and (samples := number(run.fit.get("samples"))) is not None
    }
    for run in runs:
        moment = run.get("conditions") or (run.fit or {}).get("conditions")
        if isinstance(moment, Mapping):
            out += html.heading(f"Moment of measuring, {run.name}", 3) + html.settings(moment)
    if floors or counts:
        names = dict.fromkeys([*counts, *floors])
        rows = [[name, counts.get(name, "–"), floors.get(name, "not measured")] for name in names]
        out += html.table(["run", "sample", "noise floor"], rows, text=(0, 1, 2))
    return out


def settings(runs: Sequence[Recorded]) -> str:
    """Every setting and every result, to open."""
    out = [html.heading("Settings and results")]
    for run in runs:
        head = {"seed": run.seed, "directory": str(run.path)}
        seconds, version = number(run.get("seconds")), run.get("sartor_version")
        state = "not finished" if run.result is None else "finished"
        if seconds is not None:
            state = f"{seconds:,.0f} s" if seconds >= 10 else f"{seconds:.2g} s"
        parent = run.result is None and is_parent(run, runs)
        aside = f"{run.verb}, {'holds the runs below' if parent else state}" + (
            f", sartor {version}" if version else ""
        )
        inside = html.heading("Settings", 3) + html.settings({**head, **run.job})
        if run.result is not None:
            inside += html.heading("Result", 3) + html.settings(_brief(run.result))
        elif not parent:
            inside += html.missing("There is no result yet.")
        out.append(html.folded(run.name, aside, inside))
    return "".join(out)


def _brief(result: Mapping[str, Any]) -> dict[str, Any]:
    """The result without what the page shows as tables and figures."""
    return {k: v for k, v in result.items() if k not in ("rows", "points")}


def _number(value: Any, form: str, unit: str = "") -> str:
    found = number(value)
    return "–" if found is None else f"{found:{form}}{unit}"
