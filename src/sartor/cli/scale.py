"""`sartor scale`: a found network as wide as the device allows at the same latency."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sartor.cli.common import JsonFlag, RunDir, Seed, StoreRef, TargetRef, run_job
from sartor.core import Json, UserError

if TYPE_CHECKING:
    from sartor.workflow.scaling import Step

GAPS = ("gap_percent", "measured_gap_percent")


def add(app: typer.Typer) -> None:
    @app.command()
    def scale(
        source: Annotated[Path, typer.Argument(help="Directory of a search, or an architecture file.")],
        target: TargetRef = "onnxruntime:cpu?threads=1&batch=1",
        step: Annotated[float, typer.Option(help="How much wider from one measurement to the next.")] = 0.1,
        most: Annotated[float, typer.Option(help="Largest factor to try.")] = 4.0,
        tolerance: Annotated[
            float,
            typer.Option(help="Share by which latencies may differ and count as equal; up to 0.03 where noise is."),
        ] = 0.02,
        store: StoreRef = None,
        run: RunDir = None,
        seed: Seed = 0,
        json: JsonFlag = False,
    ) -> None:
        """Widen a found network for as long as its measured latency stays the same (Comfort Zone of SurgeNAS).

        GPUs that a small network leaves idle allow that; a device that does not is told so, and the factor is 1.0. The
        page in the run directory shows latency, arithmetic intensity and the roofline of the device.

        Example: sartor scale runs/search-1a2b3c4d --target torch:cuda
        """
        from sartor import targets, workflow
        from sartor.report import report
        from sartor.runs import Run, read_json, write_json
        from sartor.workflow.roofline import roofline
        from sartor.workflow.scaling import comfort_zone

        space, arch = workflow.load_architecture(source)
        space.scaled(1.0)  # a space without a width is refused before anything is written
        found_target = targets.get(target)
        done = source / "result.json"
        searched = read_json(done) if source.is_dir() and done.exists() else {}
        budgets = searched.get("budgets") or []

        def work(opened: Run) -> dict[str, Json]:
            with workflow.opened(store) as kept:
                sitting = f"scale {opened.path.resolve()}"
                zone = comfort_zone(
                    space, arch, found_target, kept, step=step, most=most, tolerance=tolerance, sitting=sitting
                )
                try:
                    roof = roofline(zone.space, arch, found_target, kept)
                except UserError as error:  # the factor is what was asked for
                    typer.echo(f"no roofline: {error}", err=True)
                    roof = None
            write_json(opened.path / "architecture.json", zone.space.to_json(arch))
            steps = {one.factor: one for one in zone.steps}
            wide = _costs(steps[zone.factor], budgets)
            return {
                "source": str(source),
                "target": found_target.id,
                **zone.describe(),
                "space": zone.space.spec(),
                "architecture": list(arch),
                "budgets": budgets,
                **wide,
                "argmax": {"architecture": list(arch), **_costs(steps[1.0], budgets)},
                "landing": "verified" if zone.factor > 1 else "argmax",
                "feasible": all(gap <= 0 for kind in GAPS for gap in wide[kind].values()),
                "roofline": roof,
                "page": str(opened.path / "report.html"),
                "next": f"sartor train {shlex.quote(str(opened.path))}",
            }

        job = {
            "verb": "scale",
            "space": space.spec(),
            "architecture": list(arch),
            "target": found_target.id,
            "step": step,
            "most": most,
            "tolerance": tolerance,
        }
        result = run_job(job, seed, run, json, work)
        report([Path(result["run"])], Path(result["page"]))


def _costs(step: Step, budgets: list[Json]) -> dict[str, Json]:
    """What is counted and what was measured of a network, and the gaps to the limits on it."""
    known = {"predicted": {"macs": step.macs, "params": step.params}, "measured": {"latency_ms": step.latency_ms}}
    limits = {b["metric"]: float(b["limit"]) for b in budgets}
    gaps = [{n: (v / limits[n] - 1) * 100 for n, v in costs.items() if n in limits} for costs in known.values()]
    return {**known, **dict(zip(GAPS, gaps))}
