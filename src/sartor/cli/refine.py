"""`sartor refine`: the channels of a found network, layer by layer, within the limits of its search."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from sartor.cli.common import (
    FOUND,
    Config,
    Data,
    Device,
    JsonFlag,
    RunDir,
    Samples,
    Seed,
    Set,
    StoreRef,
    TargetRef,
    run_job,
    run_verb,
    say_step,
    set_words,
    settings_from,
    settings_help,
)
from sartor.core import Json, UserError, parse_limit
from sartor.core.units import typed
from sartor.methods import SETTINGS
from sartor.runs import Run, read_json, write_json

METHOD = "lightnas-channels"


def add(app: typer.Typer) -> None:
    @app.command(epilog=settings_help(METHOD))
    def refine(
        source: Annotated[Path, typer.Argument(help="Directory of a search, or an architecture file.")],
        data: Data = "digits",
        budget: Annotated[
            list[str] | None, typer.Option("--budget", help="A limit with its unit. Default: those of the search.")
        ] = None,
        target: TargetRef = "onnxruntime:cpu?threads=1&batch=1",
        mode: Annotated[
            str, typer.Option(help="What is scaled: `output` of each layer, or `hidden`, what is inside it.")
        ] = "output",
        predictor: Annotated[str, typer.Option(help="auto, all, or a name that `sartor fit` takes.")] = "auto",
        samples: Samples = 400,
        recipe: Annotated[
            list[str] | None, typer.Option("--recipe", help="key=value of the trainings, as `sartor train --set`.")
        ] = None,
        set_: Set = None,
        config: Config = None,
        device: Device = "cpu",
        store: StoreRef = None,
        run: RunDir = None,
        seed: Seed = 0,
        json: JsonFlag = False,
    ) -> None:
        """Refine a found network: how wide each layer is (LightNAS++), graded by its first epochs of training.

        Measures networks with other channels, fits a predictor of them, evolves, trains what it finds and the network
        as it was with one recipe, measures both in one sitting, and writes the page.

        Example: sartor refine runs/search-1a2b3c4d --data digits --recipe epochs=30
        """
        settings, training = settings_from(config, set_), settings_from(None, recipe)
        SETTINGS[METHOD].of(settings)

        from sartor import targets, tasks, workflow
        from sartor.spaces.channels import Channels
        from sartor.training.recipe import Recipe

        Recipe().override(training)
        space, arch = workflow.load_architecture(source)
        channels = Channels(space, arch, mode)
        task, found_target = tasks.get(data, device), targets.get(target)
        limits, two_sided = (budget, False) if budget else _limits(source, found_target.id)
        for limit in limits:
            parse_limit(limit)
        workflow.fits_task(space, task, arch, named=f"the network of {source}", advice="search in a space that fits")

        def work(opened: Run) -> dict[str, Json]:
            where = opened.path
            write_json(where / "channels.json", channels.to_json(channels.unscaled))
            stored = ["--store", store] if store else []

            say_step(f"search channels within {' and '.join(limits)}")
            found = run_verb(
                "search", where / "search", seed, METHOD, "--space", where / "channels.json", "--data", data,
                *(word for limit in limits for word in ("--budget", limit)), "--target", target, "--device", device,
                "--predictor", predictor, "--samples", samples, *(["--two-sided"] if two_sided else []), *stored,
                *set_words(settings),
            )  # fmt: skip
            if found["landing"] == "none_found":
                raise UserError(f"no channels keep {' and '.join(limits)} together; give wider limits with --budget.")
            say_step("train what was found, and the network as it was, with one recipe")
            common = ("--data", data, "--device", device, *set_words(training))
            networks = {"refined": where / "search", "as it was": where / "channels.json"}
            trained = {
                name: run_verb("train", where / name.replace(" ", "-"), seed, path, "--name", name, *common)
                for name, path in networks.items()
            }
            say_step("measure both in one sitting")
            paths = [where / name.replace(" ", "-") for name in networks]
            side = run_verb(
                "measure", where / "compare", seed, *paths, "--target", target, *stored,
                "--sitting", f"compare {where.resolve()}",
            )["members"]  # fmt: skip
            return {
                "source": str(source),
                "target": found_target.id,
                **{key: found[key] for key in FOUND},
                "networks": [
                    {
                        "network": name,
                        "latency_ms": one["latency_ms"],
                        result["metric"]: result["value"],
                        "macs": result["macs"],
                        "params": result["params"],
                        "score": found["extras"]["score" if name == "refined" else "unrefined"],
                    }
                    for (name, result), one in zip(trained.items(), side)
                ],
                "page": str(where / "report.html"),
                "next": f"sartor export {shlex.quote(str(where / 'refined'))}",
            }

        job = {
            "verb": "refine",
            "space": channels.spec(),
            "data": task.describe(),
            "target": found_target.id,
            "budgets": limits,
            "two_sided": two_sided,
            "predictor": predictor,
            "samples": samples,
            "settings": SETTINGS[METHOD].of(settings).model_dump(),
            "recipe": training,
        }
        result = run_job(job, seed, run, json, work)

        from sartor.report import report

        report([Path(result["run"])], Path(result["page"]))


def _limits(source: Path, target: str) -> tuple[list[str], bool]:
    """The budgets of a search, as they are typed, and whether they are met from both sides."""
    from sartor.spaces.complexity import COUNTED

    done = source / "result.json"
    found = read_json(done) if source.is_dir() and done.exists() else {}
    budgets = found.get("budgets")
    if not budgets:
        raise UserError(f"{source} is no finished search with a budget; give one such as --budget 20ms.")
    if found.get("target") != target and any(b["metric"] not in COUNTED for b in budgets):
        raise UserError(
            f"{source} was searched for {found.get('target')}, --target is {target}: its limits mean something else "
            "there; give that --target, or a --budget."
        )
    limits = [typed(b["limit"], b["metric"]) for b in budgets]
    return limits, any(b.get("sense") == "at" for b in budgets)
