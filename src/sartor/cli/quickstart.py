"""`sartor quickstart`: the whole way on embedded data, in minutes: this machine, one budget, one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sartor.cli.common import JsonFlag, Seed, emit, run_verb, say_step, set_words
from sartor.core import Json
from sartor.runs import Run, write_json

SPACE = "mobilenet:tiny"
SAMPLES = 240
SEARCH = {"epochs": 40, "warmup_epochs": 12, "batch_size": 32, "lr": 0.05}
RECIPE = {"epochs": 30, "batch_size": 64, "evaluate_every": 3}
SHARE = 0.35  # where between the smallest and the largest network the budget is set


def add(app: typer.Typer) -> None:
    @app.command()
    def quickstart(
        run: Annotated[Path, typer.Option("--run", help="Run directory; the same command resumes it.")] = Path(
            "runs/quickstart"
        ),
        target: Annotated[
            str, typer.Option("--target", help="What the network is cut for.")
        ] = "onnxruntime:cpu?threads=1",
        seed: Seed = 0,
        json: JsonFlag = False,
    ) -> None:
        """Cut a network to this CPU, in minutes.

        Measures, searches one budget on digits, trains, compares with a scaled baseline, exports, writes the page.

        Example: sartor quickstart
        """
        from sartor import spaces, targets, tasks

        space, found_target, task = spaces.get(SPACE), targets.get(target), tasks.get("digits")
        job = {"verb": "quickstart", "space": space.spec(), "target": found_target.id, "data": task.describe()}
        with Run(run, job, seed):
            result = _quickstart(run, target, seed)
            write_json(run / "result.json", result)
        emit(result, json)


def _quickstart(run: Path, target: str, seed: int) -> dict[str, Json]:
    """Every step is the verb of that name in a run directory below `run`, so each resumes by itself."""
    import torch

    from sartor import spaces, targets, workflow
    from sartor.choose.solve import reachable
    from sartor.predictors import load

    torch.set_num_threads(1)  # images of 8 x 8: threads that wait for each other cost more than they give
    store = str(run / "measurements.db")
    space = spaces.get(SPACE)

    say_step("measure this machine and fit a predictor of latency")
    fit = run_verb(
        "fit", run / "fit", seed, "--space", SPACE, "--target", target, "--samples", SAMPLES, "--store", store
    )
    low, high = reachable(space, load(Path(fit["file"]), space=space))
    limit = f"{low + SHARE * (high - low):.2g}ms"

    say_step(f"search for the best network within {limit} (reachable: {low:.3g} to {high:.3g} ms)")
    found = run_verb(
        "search", run / "search", seed, "lightnas", "--space", SPACE, "--data", "digits", "--budget", limit,
        "--target", target, "--predictor", fit["file"], "--store", store, *set_words(SEARCH),
    )  # fmt: skip
    say_step("scale a uniform MobileNetV2-like network to the same measured latency")
    found_target = targets.get(target)
    with workflow.opened(store) as kept:
        scaled, arch = workflow.match_uniform(space, tuple(found["architecture"]), found_target, kept, "uniform")
    write_json(run / "uniform.json", scaled.to_json(arch))

    say_step("train both with one recipe")
    common = ("--data", "digits", *set_words(RECIPE))
    ours = run_verb("train", run / "train", seed, run / "search", "--name", "found", *common)
    width = scaled.slots[0].candidates[arch[0]]
    theirs = run_verb("train", run / "baseline", seed, run / "uniform.json", "--name", f"uniform x{width}", *common)

    say_step("measure both in one sitting")
    side = run_verb(
        "measure", run / "compare", seed, run / "train", run / "baseline",
        "--target", target, "--store", store, "--sitting", "compare",
    )["members"]  # fmt: skip

    say_step("export, each file compared with its source")
    exported = run_verb("export", run / "export", seed, run / "train")

    from sartor.report import headline, report

    page = report([run], run / "report.html")
    return {
        "verb": "quickstart",
        "run": str(run),
        "seed": seed,
        "verdict": headline([run]),
        "budget": limit,
        "predicted": found["predicted"],
        "measured": found["measured"],
        "gap_percent": found["gap_percent"],
        "measured_gap_percent": found["measured_gap_percent"],
        "side_by_side": [
            {"network": trained["name"], "latency_ms": one["latency_ms"], trained["metric"]: trained["value"]}
            for trained, one in zip((ours, theirs), side)
        ],
        "files": exported["files"],
        "page": str(page),
    }
