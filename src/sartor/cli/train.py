"""`sartor train`: a found network."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from sartor.cli.common import Config, Data, Device, JsonFlag, RunDir, Seed, Set, run_job, settings_from
from sartor.core import Json, UserError

TUNED_LR = 0.01
Source = Annotated[Path, typer.Argument(help="Directory of a search, or an architecture file.")]


def add(app: typer.Typer) -> None:
    @app.command()
    def train(
        source: Source,
        data: Data = "digits",
        name: Annotated[str, typer.Option(help="What the report calls the network.")] = "found",
        paper: Annotated[
            bool, typer.Option("--paper", help="The published recipe of the method that found it.")
        ] = False,
        tuned: Annotated[
            bool,
            typer.Option("--tuned", help=f"Begin with the weights that a given model came with, at lr={TUNED_LR}."),
        ] = False,
        teacher: Annotated[
            str | None, typer.Option(help="Run of a training whose outputs are wanted, too; `model`: the given one.")
        ] = None,
        set_: Set = None,
        config: Config = None,
        device: Device = "cpu",
        devices: Annotated[int, typer.Option(help="GPUs, or processes on a CPU, that share every batch.")] = 1,
        run: RunDir = None,
        seed: Seed = 0,
        json: JsonFlag = False,
    ) -> None:
        """Train a network, from scratch unless told otherwise, and test it; on coco:PATH, a detector on it (SSDLite).

        Example: sartor train runs/search-1a2b3c4d --data digits --set epochs=30
        """
        from sartor.training.recipe import Recipe

        changes = settings_from(config, set_)
        Recipe().override(changes)  # typing errors before anything is read

        from sartor import tasks, workflow
        from sartor.runs import Run
        from sartor.spaces.detectors import Detectors

        space, arch = workflow.load_architecture(source)
        usual = Recipe(optimiser=space.optimiser).override({"lr": TUNED_LR} if tuned else {})
        recipe = (Recipe.paper(workflow.method_of(source)) if paper else usual).override(changes)
        task = tasks.get(data, device)
        space = workflow.for_task(space, task)
        workflow.fits_task(space, task, arch)
        if isinstance(space, Detectors) and (paper or teacher is not None):
            given = "--paper" if paper else f"--teacher {teacher}"
            raise UserError(f"{given} is for classifiers, {data} has boxes; leave it out.")
        wise = None if teacher is None else workflow.teacher(teacher, space)

        def work(opened: Run) -> dict[str, Json]:
            result = workflow.train_network(space, arch, task, recipe, opened, devices, tuned=tuned, teacher=wise)
            following = f"sartor export {shlex.quote(str(opened.path))}"
            return {"name": name, **result, "settings": recipe.model_dump(), "next": following}

        job = {
            "verb": "train",
            "name": name,
            "architecture": space.to_json(arch),
            "data": task.describe(),
            "recipe": recipe.model_dump(),
            **({"devices": devices} if devices != 1 else {}),
            **({"tuned": True} if tuned else {}),
            **({"teacher": teacher} if teacher is not None else {}),
        }
        run_job(job, seed, run, json, work)
