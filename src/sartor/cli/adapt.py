"""`sartor adapt`: a network that exchanges blocks while it runs, to keep a latency limit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sartor.cli.common import Data, Device, JsonFlag, RunDir, Seed, run_job
from sartor.core import Json, UserError, parse_limit


def add(app: typer.Typer) -> None:
    @app.command()
    def adapt(
        source: Annotated[Path, typer.Argument(help="Directory of a search with mathnas that trained a supernet.")],
        data: Data = "digits",
        limit: Annotated[
            str | None, typer.Option(help="Latency to keep, such as 20ms. Default: the search's, or the network's.")
        ] = None,
        blocks: Annotated[int, typer.Option(min=2, help="Blocks kept for a slot at most.")] = 5,
        epochs: Annotated[
            int | None,
            typer.Option(
                min=0, help="Passes over the data in which the blocks get used to one another. Default: 2,500 steps."
            ),
        ] = None,
        threads: Annotated[int, typer.Option(min=1, help="Of each run.")] = 1,
        device: Device = "cpu",
        run: RunDir = None,
        seed: Seed = 0,
        json: JsonFlag = False,
    ) -> None:
        """Make a dynamic network: Pareto-optimal blocks of every slot, and a controller that exchanges them.

        The directory `dynamic` in the run is all that is deployed: ONNX blocks, tables, and controller.py, which needs
        numpy and onnxruntime alone.

        Example: sartor adapt runs/search-1a2b3c4d --data digits --limit 2ms
        """
        if limit is not None and parse_limit(limit)[0].name != "latency_ms":
            raise UserError(f"--limit {limit!r} is no latency; give one such as --limit 20ms.")

        from sartor import tasks, workflow
        from sartor.report import report
        from sartor.runs import Run

        space, arch = workflow.load_architecture(source)
        task = tasks.get(data, device)
        workflow.fits_task(space, task)

        def work(opened: Run) -> dict[str, Json]:
            found = workflow.adapt(
                source, tasks.for_search(task), opened, limit=limit, blocks=blocks, epochs=epochs, threads=threads
            )
            return {
                "source": str(source),
                **found,
                "page": str(opened.path / "report.html"),
                "next": f"python {opened.path / 'dynamic' / 'controller.py'} {opened.path / 'dynamic'}",
            }

        job = {
            "verb": "adapt",
            "space": space.spec(),
            "architecture": list(arch),
            "data": task.describe(),
            "limit": limit,
            "blocks": blocks,
            "epochs": epochs,
            "threads": threads,
        }
        result = run_job(job, seed, run, json, work)
        report([Path(result["run"])], Path(result["page"]))
