"""`sartor report`: one page that shows how it got there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sartor.cli.common import JsonFlag, emit


def add(app: typer.Typer) -> None:
    @app.command()
    def report(
        runs: Annotated[list[Path], typer.Argument(help="Run directories; sub-runs are found by themselves.")],
        out: Annotated[Path | None, typer.Option(help="Default: report.html in the first run.")] = None,
        json: JsonFlag = False,
    ) -> None:
        """Write a page about one or more runs.

        Example: sartor report runs/quickstart
        """
        from sartor.report import report as written

        page = written(runs, out or runs[0] / "report.html")
        emit({"verb": "report", "runs": [str(run) for run in runs], "page": str(page)}, json)
