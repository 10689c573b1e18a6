"""`sartor export`: a trained network for the world outside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sartor.cli.common import JsonFlag, RunDir, Seed, run_job
from sartor.core import Json, UserError

FORMATS = ("onnx", "pt2", "safetensors")
EIGHT = "int8"


def add(app: typer.Typer) -> None:
    @app.command()
    def export(
        source: Annotated[Path, typer.Argument(help="Directory of a training.")],
        format: Annotated[
            list[str] | None,
            typer.Option(help="onnx, pt2, safetensors, the default; int8, which wants --data. Repeatable."),
        ] = None,
        data: Annotated[
            str | None,
            typer.Option(help="NAME, NAME:PATH or PATH: training data calibrate int8, and test data test it."),
        ] = None,
        run: RunDir = None,
        seed: Seed = 0,
        json: JsonFlag = False,
    ) -> None:
        """Export a trained network.

        Batch norms are folded; each file is compared with its source. Of int8, a quantised ONNX file, accuracy is told.

        Example: sartor export runs/train-1a2b3c4d --format onnx --format int8 --data digits
        """
        formats = tuple(dict.fromkeys(format or FORMATS))
        for name in formats:
            if name not in (*FORMATS, EIGHT):
                known = ", ".join((*FORMATS, EIGHT))
                raise UserError(f"unknown format {name!r}; there is {known}; choose one or more of them.")
        if (EIGHT in formats) != (data is not None):
            raise UserError("--format int8 and --data belong together: data calibrate 8 bits, and nothing else.")

        from sartor import tasks, workflow
        from sartor.runs import Run, read_json

        space, arch, network = workflow.load_network(source)
        task = None if data is None else tasks.get(data)
        if task is not None:
            workflow.fits_task(space, task, arch)

        def work(opened: Run) -> dict[str, Json]:
            trained = source / "result.json"
            prepared = read_json(trained).get("input") if trained.exists() else None
            described = {**space.to_json(arch), "input": prepared}
            place, deployed = opened.path / "export", space.deploy(network)
            told = workflow.export_network(deployed, space.inputs(1, arch), place, formats, described, task)
            return {"source": str(source), **told}

        weights = (source / "network.safetensors").stat()
        job = {
            "verb": "export",
            "source": str(source.resolve()),
            "weights": [weights.st_size, weights.st_mtime_ns],
            "formats": list(formats),
            **({} if task is None else {"data": task.describe()}),
        }
        run_job(job, seed, run, json, work)
