"""The sections of the page. Each takes runs and gives HTML; what is missing is said in its place."""

from __future__ import annotations

from collections.abc import Sequence

from sartor import spaces
from sartor.core import Json, UserError, show
from sartor.report import figures, html, words
from sartor.report.collect import Recorded
from sartor.report.drawing import layers
from sartor.report.values import Line, epochs, known, number
from sartor.report.words import Trained

# ---------------------------------------------------------------------- a search


def search_tiles(search: Recorded, networks: Sequence[Trained]) -> str:
    """Budget, predicted, measured, quality, size."""
    tiles = []
    for budget in search.get("budgets") or []:
        name = budget["metric"]
        of, word = known(name), words.noun(name)
        sense = "within 0.5 % on both sides" if budget.get("sense") == "at" else "upper limit"
        tiles.append(html.Tile(f"{word} budget", show(float(budget["limit"]), of), sense))
        for which in ("predicted",) if name in words.COUNTED else ("predicted", "measured"):
            value, gap = words.cost(search, which, name), words.gaps(search, which).get(name)
            label = f"{'counted' if name in words.COUNTED else which} {word}"
            if value is None or gap is None:
                tiles.append(html.Tile(label, "–", f"not {which}"))
            else:
                news = "good" if gap <= words.allowed(budget) else "bad"
                again = words.repeats(search, networks, name)[1:] if label.startswith("measured") else []
                sub = ", again ".join([f"{words.gap_words(gap)} budget", *(show(v, of) for v in again)])
                tiles.append(html.Tile(label, show(value, of), sub, news))
    for name, found in (search.get("measured") or {}).items():
        value = number(found)
        if value is not None and name not in {b["metric"] for b in search.get("budgets") or []}:
            tiles.append(html.Tile(f"measured {words.noun(name)}", show(value, known(name)), "no budget on it"))
    for name, found in (search.get("measured_unfolded") or {}).items():
        value = number(found)
        if value is not None:
            tiles.append(html.Tile(f"{words.noun(name)} as trained", show(value, known(name)), "norms not folded"))
    ours, theirs = words.rivals(search, networks)
    if ours is not None:
        sub, news = "no baseline", ""
        if theirs is not None:
            sub = f"baseline: {words.amount(theirs.value, theirs.metric)}"
            better = words.advantage(ours, theirs)
            news = "good" if better > 0 else "bad" if better < 0 else ""
        label = words.noun(ours.metric)
        tiles.append(html.Tile(label, words.amount(ours.value, ours.metric), sub, news))
        if ours.macs is not None:
            size = "" if ours.params is None else show(ours.params, known("params"))
            tiles.append(html.Tile("size", show(ours.macs, known("macs")), size))
    return html.tiles(tiles)


def trajectory(search: Recorded) -> str:
    """The search, epoch by epoch."""
    if search.answers is not None:
        return _asked(search, search.answers)
    lines = epochs(search.journals.get("search", ()))
    out = [html.heading("How the search got there")]
    if generations := [line for line in search.journals.get("search", ()) if line.get("event") == "generation"]:
        return out[0] + _evolved(search, generations)
    if not lines:
        return out[0] + html.missing(f"{search.name} has no journal of its search, so its course cannot be drawn.")
    budgets = search.get("budgets") or _budgets_of(lines[-1])
    if search.result is None:
        out.append(html.missing(f"{search.name} has not finished; this is its course so far."))
    predicted, measured = search.get("predicted") or {}, search.get("measured") or {}
    what = words.thing(search)
    caption = (
        f"Cost of the most likely {what} and expected cost over all {what}s, against the budget (green: what counts "
        f"as landed). Diamond: the {what} the search landed on, as predicted; circle: as measured. The multiplier is "
        "the price of the cost in the loss. In the warm-up only weights are trained."
    )
    if (search.get("extras") or {}).get("collapsed"):
        out.append(
            html.missing(
                "The search collapsed: every layer of the network found is a skip. Raise the budget or lower beta."
            )
        )
    drawn = figures.trajectory(lines, budgets, predicted, measured)
    out.append(html.picture(drawn, f"Search trajectory of {search.name}", caption))
    return "".join(out) + _decisions(search, lines) + _landing(search)


def _evolved(search: Recorded, generations: Sequence[Line]) -> str:
    """The populations of an evolution."""
    extras, settings = search.get("extras") or {}, search.get("settings") or search.job.get("settings") or {}
    before = number(extras.get("unrefined"))
    proxy = settings.get("proxy")
    label = known(str(extras["quality"])).label if "quality" in extras else f"score ({proxy or 'score'})"
    kept = "; all keep the budget" if search.get("budgets") or search.job.get("budgets") else ""
    caption = f"Each dot is a network of a population, at its score{kept}. The line is the best of each generation" + (
        "; dashed: the network that the search began from." if before is not None else "."
    )
    if proxy == "bte-clipped" and settings.get("seeds") == 1:
        caption += " What could no longer be among the kept was not trained on, and stands at the most it could reach."
    if settings.get("source"):
        caption += f" The supernet is the one of {settings['source']}."
    drawn = figures.evolution(generations, label, before)
    return html.picture(drawn, f"Evolution of {search.name}", caption) + _landing(search)


def _asked(search: Recorded, answers: Line) -> str:
    """What a method that asks about few networks learnt from the answers."""
    word, extras = words.noun(str(answers.get("metric"))), search.get("extras") or {}
    out = html.heading("What the search asked, and learnt")
    count = len(answers["points"]["measured"])
    by = (
        "by the weights that they share in the supernet, on validation data"
        if "data" in search.job
        else "by the oracle"
    )
    caption = (
        f"{count} networks whose {word} was graded {by}, and what was predicted of each from the answers about others. "
        "Wide band: within 5 %."
    )
    if count:
        drawn = figures.predicted_measured(answers)
        out += html.picture(drawn, f"Predicted against asked {word} of {search.name}", caption, "half")
    if extras.get("answer") is not None and len(extras.get("interval") or ()) == 2:
        of = known(str(answers.get("metric")))
        low, high = (show(float(end), of) for end in extras["interval"])
        shares = ", ".join(f"{name} {share:.2f}" for name, share in (extras.get("weights") or {}).items())
        out += html.paragraph(
            f"The best answer{' inside the budgets' if search.get('budgets') else ''} is "
            f"{show(float(extras['answer']), of)}, and that network was chosen. "
            f"The best by prediction is expected between {low} and {high} (nine in ten). Weights of the predictors: "
            f"{shares}.",
            "note",
        )
    return out + _landing(search)


def _decisions(search: Recorded, lines: Sequence[Line]) -> str:
    """What each layer leaned to, where the journal has it."""
    try:
        slots = spaces.from_spec(search.get("space") or search.job.get("space")).slots
        fits = [
            [len(row) for row in line["permille"]] == [len(s) for s in slots] for line in lines if "permille" in line
        ]
    except (UserError, KeyError, TypeError, ValueError):
        return ""
    if not fits or not all(fits):
        return ""
    shown = "" if len(slots) <= figures.DECIDED else f" The first {figures.DECIDED} of {len(slots)} are shown."
    caption = f"How likely each candidate was as the search went on: a line that reaches 100 % has been chosen.{shown}"
    drawn = figures.decisions(lines, [(slot.name, slot.candidates) for slot in slots])
    return html.picture(drawn, f"Decisions of {search.name}", caption)


def _budgets_of(line: Line) -> list[dict[str, Json]]:
    """Budgets of an unfinished search, from cost and gap in its journal."""
    out: list[dict[str, Json]] = []
    for key, gap in line.items():
        name = key.removeprefix("gap_percent_")
        cost, percent = number(line.get(name)), number(gap)
        if name != key and cost is not None and percent is not None and percent > -100:
            out.append({"metric": name, "limit": float(f"{cost / (1 + percent / 100):.6g}"), "sense": "at_most"})
    return out


def _landing(search: Recorded) -> str:
    """Before and after landing, by budget."""
    before, rows, what = search.get("argmax") or {}, [], words.thing(search)
    for budget in search.get("budgets") or []:
        name, limit = budget["metric"], float(budget["limit"])
        names = (f"most likely {what}", "landed on") if search.answers is None else ("best by prediction", "chosen")
        for label, costs in zip(names, (before, search.result or {})):
            row = [label if len(search.get("budgets")) == 1 else f"{label}, {words.noun(name)}"]
            for which in ("predicted", "measured"):
                value = number((costs.get(which) or {}).get(name))
                row.append("–" if value is None else show(value, known(name)))
                row.append("–" if value is None else words.signed((value / limit - 1) * 100))
            rows.append(row)
    status = str(search.get("landing") or "not recorded")
    said = {
        "argmax": f"the most likely {what} itself",
        "optimal": f"the best {what} inside the budgets by what the search learnt, proven",
        "sampled": f"the nearest of the {what}s drawn in the end",
        "verified": "inside the budgets by the predictor, not proven to be the best",
        "within": "the best network that is known, inside every limit and not near one",
        "none_found": f"no {what} at the budgets was found; this comes nearest",
    }.get(status, status)
    head = ["", "predicted", "gap", "measured", "gap"]
    return html.table(head, rows) + html.paragraph(f"Landing: {said}.", "note") if rows else ""


def architecture(search: Recorded) -> str:
    """The network, drawn, and as a table."""
    out = html.heading("The network")
    spec, arch = search.get("space"), search.get("architecture")
    if not spec or not arch:
        return out + html.missing(f"{search.name} records no architecture, so there is no network to draw.")
    try:
        space = spaces.from_spec(spec)
        columns = layers(space, arch)
        drawn = figures.architecture(space, arch)
    except (UserError, KeyError, TypeError, ValueError) as error:
        return out + html.missing(f"The network of {search.name} cannot be drawn: {error}")
    total = sum(layer.macs or 0.0 for layer in columns)
    chosen = [layer for layer in columns if layer.chosen]
    skips = sum(layer.skipped for layer in chosen)
    how = "grey is as it was"
    if any(layer.kernel for layer in chosen):
        wide = ", width is the expansion" if any(layer.expansion for layer in chosen) else ""
        how = f"height and shade are the kernel{wide}, grey is fixed"
    caption = (
        f"From input to output: {len(chosen)} searched layers, {skips} of them skipped; {how}, a thin line is a skip. "
        "Above: channels and resolution after each stage. "
    )
    caption += f"Below: share of {show(total, known('macs'))}." if total else "Costs per layer cannot be counted here."
    rows = [
        [
            layer.name,
            layer.operator if layer.chosen else f"{layer.operator} (fixed)",
            "–" if layer.shape is None else " × ".join(map(str, layer.shape)),
            "–" if layer.macs is None else show(layer.macs, known("macs")),
            "–" if not total or layer.macs is None else f"{layer.macs / total * 100:.1f} %",
        ]
        for layer in columns
    ]
    listed = html.table(["layer", "operator", "output", "MACs", "share"], rows, text=(0, 1))
    return (
        out
        + html.picture(drawn, f"Architecture of {search.name}", caption)
        + html.folded("Layers as a table", f"{len(columns)} rows", listed)
    )


# ---------------------------------------------------------------------- trained networks


def tradeoff(runs: Sequence[Recorded], networks: Sequence[Trained]) -> str:
    """Quality against measured cost of every trained network."""
    if not networks:
        return ""
    main = networks[0].metric
    title = f"{words.noun(main).capitalize()} against measured latency"
    out = html.heading(title)
    points = [
        {"name": t.name, "cost": sum(ms) / len(ms), "range": [min(ms), max(ms)], "value": t.value, "found": t.found}
        | {"cost_metric": "latency_ms", "metric": main}
        for t in networks
        if t.metric == main and (ms := t.measured.get("latency_ms"))
    ]
    left = [t.name for t in networks if t.name not in {p["name"] for p in points}]
    if points:
        budgets = {b["limit"]: b for run in runs for b in run.get("budgets") or [] if b["metric"] == "latency_ms"}
        caption = (
            "Diamond: found by a search; circle: baseline. Each network was trained once, so that small differences "
            "in quality may be chance; a bar joins repeated measurements of one network. Latencies within 3 % count as "
            "equal."
        )
        out += html.picture(figures.tradeoff(points, list(budgets.values())), title, caption)
    if left:
        out += html.missing(f"Without a measured latency (or with another metric), so not in the figure: {_and(left)}.")
    rows = [
        [
            t.name,
            words.amount(t.value, t.metric),
            ", ".join(show(v, known("latency_ms")) for v in t.measured.get("latency_ms", ())) or "–",
            *(
                "–" if (v := number(value)) is None else show(v, known(name))
                for name, value in (
                    ("macs", t.macs),
                    ("params", t.params),
                )
            ),
            t.epochs or "–",
        ]
        for t in networks
    ]
    head = ["network", words.noun(main), "measured latency", "MACs", "parameters", "epochs"]
    return out + html.table(head, rows, chosen=[i for i, t in enumerate(networks) if t.found])


def curves(runs: Sequence[Recorded]) -> str:
    """Training, epoch by epoch."""
    trains = sorted((run for run in runs if run.verb == "train"), key=lambda run: not words.is_found(run, runs))
    names = [str(run.get("name") or run.job.get("name") or run.name) for run in trains]
    labels = [name if names.count(name) == 1 else f"{name} ({run.name})" for name, run in zip(names, trains)]
    journals = {label: run.journals.get("train", ()) for label, run in zip(labels, trains)}
    drawn = {label: lines for label, lines in journals.items() if epochs(lines)}
    if not trains:
        return ""
    out = html.heading("Training")
    if drawn:
        caption = "Each network by the recipe given under settings; quality where it was evaluated."
        out += html.picture(figures.training_curves(drawn), "Training curves", caption)
    if len(drawn) < len(journals):
        out += html.missing(f"No training journal: {_and([label for label in journals if label not in drawn])}.")
    unfinished = [run.name for run in trains if run.result is None]
    return out + (html.missing(f"Training has not finished: {_and(unfinished)}.") if unfinished else "")


# ---------------------------------------------------------------------- exports


def exports(runs: Sequence[Recorded]) -> str:
    """Files for use without sartor."""
    files = [(run, name, file) for run in runs for name, file in (run.get("files") or {}).items()]
    if not files:
        return ""
    rows = []
    for run, name, file in files:
        size, error = (number(file.get(k)) if isinstance(file, dict) else None for k in ("bytes", "max_abs_error"))
        path = str(file.get("path", "–")) if isinstance(file, dict) else str(file)
        path = path.removeprefix(f"{run.path}/")
        rows.append([name, path, "–" if size is None else _size(size), "–" if error is None else f"{error:.1g}"])
    notes = ["Largest difference between the outputs of the file and of the trained network on the same input."]
    for run in runs:
        before, after, metric = number(run.get("value")), number(run.get("value_int8")), str(run.get("metric"))
        if before is not None and after is not None:
            was, now = (words.amount(value, metric) for value in (before, after))
            notes.append(f"Of 8 bits it reaches {now} {words.noun(metric)} on test data, as trained {was}.")
    head = ["format", "file", "size", "largest difference"]
    said = "".join(html.paragraph(note, "note") for note in notes)
    return html.heading("Exported files") + html.table(head, rows, text=(0, 1)) + said


def _size(count: float) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def _and(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + names[-1]
