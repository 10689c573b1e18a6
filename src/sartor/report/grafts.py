"""The section about a network that was cut down: what became of its blocks."""

from __future__ import annotations

from sartor.report import html
from sartor.report.collect import Recorded


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
