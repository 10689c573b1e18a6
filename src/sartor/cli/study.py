"""`sartor study`: what a device makes of a space."""

from __future__ import annotations

from typing import Annotated

import typer

from sartor.cli.common import JsonFlag, RunDir, Seed, StoreRef, TargetRef, run_job
from sartor.core import Json, UserError, metric
from sartor.runs import Run


def add(app: typer.Typer) -> None:
    words = "Studies of a space on a target.\n\nExample: sartor study complexity --space mobilenet:tiny -n 100"
    group = typer.Typer(help=words, no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(group, name="study")
    group.callback()(lambda: None)  # or typer would take the only study for the verb itself
    group.command()(complexity)


def complexity(
    space: Annotated[str, typer.Option("--space", help="NAME[:PRESET][?option=value&...] or a JSON file.")],
    target: TargetRef = "onnxruntime:cpu?threads=1&batch=1",
    networks: Annotated[int, typer.Option("--networks", "-n", min=10, help="Drawn uniformly.")] = 1000,
    measured: Annotated[
        list[str] | None,
        typer.Option("--metric", help="Repeatable; default latency_ms and, where it can be measured, energy_mj."),
    ] = None,
    store: StoreRef = None,
    run: RunDir = None,
    seed: Seed = 0,
    json: JsonFlag = False,
) -> None:
    """What MACs, parameters, memory access and arithmetic intensity tell of measured latency and energy.

    Example: sartor study complexity --space mobilenet:lightnas -n 1000
    """
    from sartor import spaces, targets, workflow

    found_space, found_target = spaces.get(space), targets.get(target)
    metrics = list(dict.fromkeys(measured or [m for m in ("latency_ms", "energy_mj") if m in found_target.metrics]))
    for name in metrics:
        if metric(name).name not in found_target.metrics:
            there = ", ".join(sorted(found_target.metrics))
            raise UserError(f"{found_target.id} does not measure {name}; it measures {there}.")
    where = store or workflow.default_store()

    def work(_: Run) -> dict[str, Json]:
        with workflow.opened(where) as kept:
            return workflow.complexity_study(found_space, found_target, networks, metrics, kept, seed)

    job = {
        "verb": "study",
        "name": "complexity",
        "space": found_space.spec(),
        "target": found_target.id,
        "networks": networks,
        "metrics": metrics,
        "store": where,
    }
    found = run_job(job, seed, run, json, work)
    if not json:
        _show(found)


def _show(found: dict[str, Json]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"Kendall's tau over {found['networks']} networks (95 % of resampled ones)")
    for name in ("count", "measured", "tau"):
        table.add_column(name)
    for row in found["rows"]:
        tau = "-" if row["tau"] is None else f"{row['tau']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
        table.add_row(row["count"], row["metric"], tau)
    Console().print(table)
