"""`sartor measure`: networks of a space on a target, into the store."""

from __future__ import annotations

from typing import Annotated

import typer

from sartor.cli.common import JsonFlag, RunDir, Samples, Seed, Space, StoreRef, TargetRef, run_job
from sartor.core import Json


def add(app: typer.Typer) -> None:
    @app.command()
    def measure(
        space: Space,
        target: TargetRef = "onnxruntime:cpu?threads=1&batch=1",
        samples: Samples = 1000,
        metric: Annotated[list[str] | None, typer.Option("--metric", help="Repeatable; default latency_ms.")] = None,
        sitting: Annotated[
            str, typer.Option(help="Name of the measuring pass; another name measures anew.")
        ] = "default",
        store: StoreRef = None,
        run: RunDir = None,
        seed: Seed = 0,
        json: JsonFlag = False,
    ) -> None:
        """Measure a sample of networks; what the store has already is not measured again.

        Example: sartor measure --space mobilenet:tiny --samples 100
        """
        from sartor import spaces, targets, workflow
        from sartor.runs import Run
        from sartor.targets.measure import measure as measured

        found_space, found_target = spaces.get(space), targets.get(target)
        metrics = list(dict.fromkeys(metric or ["latency_ms"]))
        where = store or workflow.default_store()

        def work(opened: Run) -> dict[str, Json]:
            archs = workflow.design(found_space, samples, seed)
            with workflow.opened(where) as kept:
                rows = measured(found_space, found_target, archs, metrics, kept, sitting=sitting)
            failed = [row for row in rows if row.error is not None]
            numbers = {m: sorted(r.value for r in rows if r.metric == m and r.error is None) for m in metrics}
            return {
                "space": found_space.spec(),
                "target": found_target.id,
                "store": where,
                "sitting": sitting,
                "networks": len(archs),
                "measured": len(rows) - len(failed),
                "failed": len(failed),
                "first_error": failed[0].error if failed else None,
                "range": {m: [v[0], v[-1]] for m, v in numbers.items() if v},
            }

        job = {
            "verb": "measure",
            "space": found_space.spec(),
            "target": found_target.id,
            "samples": samples,
            "metrics": metrics,
            "sitting": sitting,
            "store": where,
        }
        run_job(job, seed, run, json, work)
