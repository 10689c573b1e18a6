"""`sartor targets`: what can be measured on this machine, and which devices agree about networks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sartor.cli.common import JsonFlag, RunDir, Samples, Seed, StoreRef, emit, run_job
from sartor.core import Json, UserError


def add(app: typer.Typer) -> None:
    @app.command()
    def targets(
        group: Annotated[
            bool, typer.Option("--group", help="Say which devices agree about networks, instead of listing.")
        ] = False,
        target: Annotated[list[str] | None, typer.Option(help="With --group: a target to measure. Repeatable.")] = None,
        space: Annotated[str | None, typer.Option(help="With --group: the space that networks are drawn from.")] = None,
        samples: Samples = 100,
        table: Annotated[
            Path | None, typer.Option(help="With --group: a public table of --space instead of targets.")
        ] = None,
        cost: Annotated[
            list[str] | None, typer.Option(help="Columns of the table, repeatable; default: every latency.")
        ] = None,
        store: StoreRef = None,
        run: RunDir = None,
        seed: Seed = 0,
        json: JsonFlag = False,
    ) -> None:
        """List what can be measured on this machine, or group devices that need one search between them.

        Each target with its id and metrics, or why it cannot be used. Two devices agree when the latencies of one are
        those of the other times a constant; the page in the run directory draws the matrix.

        Example: sartor targets --group --space mobilenet:tiny --target torch:cpu --target onnxruntime:cpu
        """
        if not group:
            if target or space or table or cost:
                raise UserError("--target, --space, --table and --cost are for --group; add it.")
            from sartor.targets import available

            emit({"verb": "targets", "targets": available()}, json)
            return
        if space is None or (table is None) == (not target):
            raise UserError("--group needs --space and either two or more --target or a --table; give them.")
        if cost and table is None:
            raise UserError("--cost names columns of a --table; give one.")
        if table is None and len(target or []) < 2:
            raise UserError("--group compares targets and was given one; give a second --target.")
        _group(space, target or [], samples, table, cost, store, run, seed, json)


def _group(
    name: str,
    references: list[str],
    samples: int,
    file: Path | None,
    columns: list[str] | None,
    store: str | None,
    run: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    from sartor import spaces, tables, targets, workflow
    from sartor.report import report
    from sartor.runs import Run
    from sartor.workflow.grouping import group_devices, measured_devices, tabled_devices

    space, found = spaces.get(name), [targets.get(reference) for reference in references]
    table = None if file is None else tables.load(space, file)

    def work(opened: Run) -> dict[str, Json]:
        if table is not None:
            names, values = tabled_devices(table, columns)
        else:
            with workflow.opened(store) as kept:
                names, values = measured_devices(space, found, samples, kept, seed)
        page = str(opened.path / "report.html")
        return {"space": space.spec(), **group_devices(names, values), "page": page}

    job = {
        "verb": "targets",
        "space": space.spec(),
        "targets": [one.id for one in found],
        "samples": None if table is not None else samples,
        "table": None if file is None else str(file.resolve()),
        "columns": columns,
    }
    result = run_job(job, seed, run, as_json, work)
    report([Path(result["run"])], Path(result["page"]))
