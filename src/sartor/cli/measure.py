"""`sartor measure`: networks of a space on a target, into the store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sartor.cli.common import JsonFlag, RunDir, Samples, Seed, StoreRef, TargetRef, run_job
from sartor.core import Json, UserError

if TYPE_CHECKING:
    from sartor.core import SearchSpace


def add(app: typer.Typer) -> None:
    @app.command()
    def measure(
        sources: Annotated[
            list[Path] | None, typer.Argument(help="Runs or architecture files: measure these, in one sitting.")
        ] = None,
        space: Annotated[str | None, typer.Option("--space", help="Measure a sample of this space instead.")] = None,
        target: TargetRef = "onnxruntime:cpu?threads=1&batch=1",
        samples: Samples = 1000,
        metric: Annotated[list[str] | None, typer.Option("--metric", help="Repeatable; default latency_ms.")] = None,
        sitting: Annotated[str, typer.Option(help="Name of the measuring pass; another measures anew.")] = "default",
        store: StoreRef = None,
        run: RunDir = None,
        seed: Seed = 0,
        json: JsonFlag = False,
    ) -> None:
        """Measure a sample of a space, or given networks side by side. What the store has is not measured again.

        Example: sartor measure --space mobilenet:tiny --samples 100
        """
        from sartor import spaces, targets, workflow
        from sartor.runs import Run
        from sartor.spaces.networks import Networks
        from sartor.targets.measure import measure as measured

        if (space is None) == (not sources):
            raise UserError("give either networks to measure (runs or architecture files) or --space for a sample.")
        given = [workflow.load_architecture(source) for source in sources or ()]
        found_space: SearchSpace = Networks(given) if space is None else spaces.get(space)
        found_target = targets.get(target)
        metrics = list(dict.fromkeys(metric or ["latency_ms"]))
        where = store or workflow.default_store()

        def work(opened: Run) -> dict[str, Json]:
            archs = workflow.design(found_space, samples, seed) if given == [] else list(found_space.enumerate())
            with workflow.opened(where) as kept:
                rows = measured(found_space, found_target, archs, metrics, kept, sitting=sitting)
            failed = [row for row in rows if row.error is not None]
            numbers = {m: sorted(r.value for r in rows if r.metric == m and r.error is None) for m in metrics}
            result: dict[str, Json] = {
                "space": found_space.spec(),
                "target": found_target.id,
                "store": where,
                "sitting": sitting,
                "networks": len(archs),
                "succeeded": len(rows) - len(failed),
                "failed": len(failed),
                "first_error": failed[0].error if failed else None,
                "range": {m: [v[0], v[-1]] for m, v in numbers.items() if v},
            }
            if given:
                values = {(r.key, r.metric): r.value if r.error is None else None for r in rows}
                result["members"] = [
                    {"source": str(source), **own.to_json(arch), **{m: values[own.key(arch), m] for m in metrics}}
                    for source, (own, arch) in zip(sources or (), given)
                ]
            return result

        job = {
            "verb": "measure",
            "space": found_space.spec(),
            "target": found_target.id,
            "samples": None if given else samples,
            "metrics": metrics,
            "sitting": sitting,
            "store": where,
        }
        run_job(job, seed, run, json, work)
