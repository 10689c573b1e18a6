"""`sartor export`: a trained network for the world outside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sartor.cli.common import JsonFlag, RunDir, Seed, run_job
from sartor.core import Json, UserError

FORMATS = ("onnx", "pt2", "safetensors")


def add(app: typer.Typer) -> None:
    @app.command()
    def export(
        source: Annotated[Path, typer.Argument(help="Directory of a training.")],
        format: Annotated[
            list[str] | None, typer.Option(help="onnx, pt2, safetensors; repeatable, default all.")
        ] = None,
        run: RunDir = None,
        seed: Seed = 0,
        json: JsonFlag = False,
    ) -> None:
        """Export a trained network.

        Batch norms are folded; each file is compared with its source.

        Example: sartor export runs/train-1a2b3c4d --format onnx
        """
        formats = tuple(dict.fromkeys(format or FORMATS))
        for name in formats:
            if name not in FORMATS:
                raise UserError(f"unknown format {name!r}; there is {', '.join(FORMATS)}; choose one or more of them.")

        from sartor import workflow
        from sartor.runs import Run, read_json

        space, arch, network = workflow.load_network(source)

        def work(opened: Run) -> dict[str, Json]:
            from sartor.export import export as written

            trained = source / "result.json"
            prepared = read_json(trained).get("input") if trained.exists() else None
            described = {**space.to_json(arch), "input": prepared}
            files = written(space.deploy(network), space.inputs(1, arch), opened.path / "export", formats, described)
            return {"source": str(source), "files": files}

        weights = (source / "network.safetensors").stat()
        job = {
            "verb": "export",
            "source": str(source.resolve()),
            "weights": [weights.st_size, weights.st_mtime_ns],
            "formats": list(formats),
        }
        run_job(job, seed, run, json, work)
