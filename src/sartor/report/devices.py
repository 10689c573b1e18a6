"""Sections about devices: how far a network can be widened for nothing, its roofline, which devices agree."""

from __future__ import annotations

from sartor.core import show
from sartor.report import device_figures, html
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
