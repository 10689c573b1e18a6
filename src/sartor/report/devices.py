"""Sections about devices: how far a network can be widened for nothing, which devices agree, networks that adapt."""

from __future__ import annotations

from sartor.core import show
from sartor.report import device_figures, figures, html, words
from sartor.report.collect import Recorded
from sartor.report.values import known, number


def scaling(run: Recorded) -> str:
    """The Comfort Zone of a network, and its layers under the roofs of the device."""
    steps, factor = run.get("steps"), number(run.get("factor"))
    if run.verb != "scale" or not steps or factor is None:
        return ""
    out = html.heading("How wide it can be for the same latency")
    widest = max((s for s in steps if s["factor"] <= factor), key=lambda s: s["factor"])
    outside = next((s for s in steps if not s["inside"]), None)
    wider = (
        f"Widened {factor:g} times it takes {show(widest['latency_ms'], known('latency_ms'))}, "
        f"{100 * (widest['ratio'] - 1):+.1f} % against the unscaled network beside it, and computes "
        f"{widest['macs'] / steps[0]['macs']:.2g} times as much."
        if factor > 1
        else "This device has no Comfort Zone for it. "
    )
    if outside is not None:
        wider += f" At {outside['factor']:g} times the width it takes {100 * (outside['ratio'] - 1):+.1f} %."
    caption = (
        "Left: latency of the widened network over that of the unscaled one in the same sitting; green: what counts as "
        "equal, and the range that is accepted. Right: multiply-accumulates per byte of memory traffic."
    )
    drawn = device_figures.comfort_zone(steps, factor)
    out += html.paragraph(wider) + html.picture(drawn, f"Comfort Zone of {run.name}", caption)
    roof = run.get("roofline")
    if not roof or not roof.get("layers"):
        return out + html.missing("The roofs of this device were not measured, so there is no roofline.")
    caption = (
        "Each mark is a layer, measured alone as a network of its own; its area is its share of the time. Lines: what "
        "single operators reach at most on this device, in arithmetic and in reading and writing memory; layers whose "
        "data fits into a cache can lie above the memory line."
    )
    return out + html.picture(device_figures.roofline(roof), f"Roofline of {run.name}", caption)


def grouping(run: Recorded) -> str:
    """Which devices agree about networks, and so need one search between them."""
    if run.verb != "targets" or not run.get("groups"):
        return ""
    groups = run.get("groups")
    out = html.heading("Which devices agree")
    out += html.table(["group", "devices"], [[i + 1, ", ".join(g)] for i, g in enumerate(groups)], text=(0, 1))
    caption = (
        f"Costs of {run.get('networks')} networks, device against device. Framed: groups, in which every two devices "
        "have a tau of at least .9 and an R² of at least .98; one search serves all of a group."
    )
    return out + html.picture(device_figures.agreement(run.result or {}), "Agreement of devices", caption)


def dynamic(run: Recorded) -> str:
    """The networks that one dynamic network can be."""
    front = run.get("front")
    if run.verb != "adapt" or not front:
        return ""
    metric, slots = str(run.get("metric")), run.get("blocks")
    of, ms, found = known(metric), known("latency_ms"), run.get("found")
    switch, norms, size, told = (run.get(k) for k in ("switch", "statistics", "bytes", "prediction"))
    caption = (
        f"Left: the best of {run.get('networks'):,} networks for every latency, by the tables of the controller, and "
        "what these reached on validation data; diamond: the network found by the search. "
        "Right: the blocks of each, darker is slower."
    )
    drawn = device_figures.dynamic(front, found, float(run.get("limit_ms")), metric, slots)
    out = html.heading("One network, many speeds") + html.picture(drawn, f"Networks of {run.name}", caption)
    rows = [[name, "; ".join(blocks)] for name, blocks in slots.items()]
    listed = html.table(["slot", "blocks, fastest first"], rows, text=(0, 1))
    out += html.folded("Blocks as a table", f"{len(rows)} slots", listed)
    out += html.paragraph(
        f"To exchange one block takes {show(switch['one_block_ms'], ms)}, to become any other network "
        f"{show(switch['random_networks_ms'], ms)}. The files of all blocks are {size['blocks'] / 1e6:.2f} MB, those "
        f"of the network found {size['network_found'] / 1e6:.2f} MB.",
        "note",
    )
    word = words.noun(metric)
    out += html.paragraph(
        f"A block has the same batch-norm statistics in every network. Mean {word} of {told['networks']} random "
        f"networks: {show(norms['own'], of)} with statistics of their own, {show(norms['shared'], of)} once they "
        f"share them, {show(norms['shared, trained'], of)} after the blocks were trained together for "
        f"{norms['epochs']} epochs.",
        "note",
    )
    caption = (
        f"{word.capitalize()} of {told['networks']} random networks of these blocks, and what the block tables say "
        f"(rank correlation {told['spearman']:.2f}). Wide band: within 5 %."
    )
    drawn = figures.predicted_measured({"metric": metric, "points": run.get("points")})
    return out + html.picture(drawn, f"Predicted against measured {word} of {run.name}", caption, "half")
