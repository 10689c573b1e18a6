"""`sartor fit`: a predictor of a target, honestly evaluated."""

from __future__ import annotations

from typing import Annotated

import typer

from sartor.cli.common import JsonFlag, RunDir, Samples, Seed, Space, StoreRef, TargetRef, run_job
from sartor.core import Json, UserError, parse_limit
from sartor.runs import write_json

Predictor = Annotated[
    str,
    typer.Option(
        help="auto (the quick ones) or all (minutes), which let the figures choose, or ridge, lookup, pairs, mlp, svm, "
        "gp, gnn, gnn-plain, gcn."
    ),
]

_TOLD = "space", "target", "metric", "samples", "failed", "left_out", "range", "noise_floor", "rows"


def add(app: typer.Typer) -> None:
    @app.command()
    def fit(
        space: Space,
        target: TargetRef = "onnxruntime:cpu?threads=1&batch=1",
        samples: Samples = 1000,
        predictor: Predictor = "auto",
        metric: Annotated[str, typer.Option("--metric", help="What to predict.")] = "latency_ms",
        near: Annotated[str | None, typer.Option(help="A limit such as 20ms: quality near it is shown too.")] = None,
        store: StoreRef = None,
        run: RunDir = None,
        seed: Seed = 0,
        json: JsonFlag = False,
    ) -> None:
        """Measure a sample and fit a predictor.

        Shows held-out quality beside ridge and the noise floor.

        Example: sartor fit --space mobilenet:tiny --samples 300 --predictor all
        """
        from sartor import spaces, targets, workflow
        from sartor.core import metric as known_metric
        from sartor.runs import Run

        found_space, found_target = spaces.get(space), targets.get(target)
        known_metric(metric)
        limit = None
        if near is not None:
            kind, limit = parse_limit(near)
            if kind.name != metric:
                raise UserError(
                    f"--near {near} limits {kind.name}, the predictor is of {metric}; give a limit on that."
                )

        def work(opened: Run) -> dict[str, Json]:
            from sartor.report.figures import predicted_measured

            found = workflow.fit_predictor(
                predictor,
                found_space,
                found_target,
                samples=samples,
                metric_name=metric,
                near=limit,
                store=store,
                seed=seed,
            )
            found.predictor.save(opened.path / "predictor.safetensors")
            write_json(opened.path / "fit.json", found.report)
            show(found.report)
            predicted_measured(found.report).savefig(opened.path / "fit.svg")
            return {
                "figure": str(opened.path / "fit.svg"),
                "predictor": found.report["default"],
                "file": str(opened.path / "predictor.safetensors"),
                **{key: found.report[key] for key in _TOLD},
            }

        job = {
            "verb": "fit",
            "space": found_space.spec(),
            "target": found_target.id,
            "samples": samples,
            "predictor": predictor,
            "metric": metric,
            "near": near,
        }
        run_job(job, seed, run, json, work)


def show(report: dict[str, Json]) -> None:
    """Held-out quality as a table on stderr, overall and near the limit where one was given; * is what is used."""
    from rich.console import Console
    from rich.table import Table

    unit, floor = report["unit"], report["noise_floor"]
    spans = "range" in report  # known tables have none
    title = f"{report['metric']}" + (", {:.3g} to {:.3g} ".format(*report["range"]) + f"{unit}," if spans else "")
    title += " held out" + (f", noise floor {floor:.3g} {unit}" if floor else "")
    title += f"; {report['left_out']} networks far from the limit left out" if report["left_out"] else ""
    table = Table(title=title)
    columns = ("rmse", "mae", "kendall", "spearman", "within_5", "within_10")
    for name in ("predictor", *columns):
        table.add_column(name.replace("_", " "), justify="right" if name != "predictor" else "left")
    for prefix, where in (("", ""), ("near_", ", near the limit")):
        for row in report["rows"]:
            if row.get(f"{prefix}rmse") is not None:
                name = row["predictor"] + where + (" *" if row["predictor"] == report["default"] else "")
                shown = (_share if c.startswith("within") else _number for c in columns)
                table.add_row(name, *(show_one(row.get(prefix + c)) for show_one, c in zip(shown, columns)))
        table.add_section()
    Console(stderr=True).print(table)


def _share(value: float | None) -> str:
    return "" if value is None or value != value else f"{100 * value:.0f} %"


def _number(value: float | None) -> str:
    return "" if value is None or value != value else f"{value:.4g}"
