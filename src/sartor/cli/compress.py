"""`sartor compress`: a given network cut down to a budget by grafting (Domino)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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
    digest,
    run_job,
    run_verb,
    say_step,
    set_words,
    settings_from,
    settings_help,
)
from sartor.core import Json, UserError, parse_limit
from sartor.methods import SETTINGS
from sartor.runs import Run, write_json

METHOD = "domino"
WORDS = {"keep": "kept", "graft": "grafted", "first": "partial (first two)", "last": "partial (last two)",
         "skip": "skipped"}  # fmt: skip
SITTINGS, SPARE = 5, 0.02
SLOWER = "kept (merged it costs more)"


def add(app: typer.Typer) -> None:
    @app.command(epilog=settings_help(METHOD))
    def compress(
        model: Annotated[
            str, typer.Argument(help="torchvision:NAME[?option=value], run:DIR, or FILE.py:FUNCTION[?option=value].")
        ],
        budget: Annotated[
            list[str] | None, typer.Option("--budget", help="60% of its own latency, 5ms, 3mJ, 200MMACs. Repeatable.")
        ] = None,
        weights: Annotated[
            Path | None, typer.Option(help="Its weights, .safetensors or .pt; of a run they are there.")
        ] = None,
        data: Data = "digits",
        target: TargetRef = "onnxruntime:cpu?threads=1&batch=1",
        candidates: Annotated[
            str, typer.Option(help="What may become of a block: keep,graft,first,last,skip; published: keep,graft.")
        ] = "keep,graft,first,last,skip",
        predictor: Annotated[str, typer.Option(help="auto, all, or a name that `sartor fit` takes.")] = "auto",
        samples: Samples = 400,
        recipe: Annotated[
            list[str] | None, typer.Option("--recipe", help="key=value of the training, as `sartor train --set`.")
        ] = None,
        distil: Annotated[
            bool, typer.Option("--distil", help="Train what is found on the outputs of the model, too; needs weights.")
        ] = False,
        set_: Set = None,
        config: Config = None,
        device: Device = "cpu",
        store: StoreRef = None,
        run: RunDir = None,
        seed: Seed = 0,
        json: JsonFlag = False,
    ) -> None:
        """Compress a given network: blocks become one convolution each, or parts of them do, or are skipped (Domino).

        Finds the blocks by tracing, measures collapsed networks, searches, trains what it finds from the model's
        weights where it has any, measures before and after in one sitting, exports, and writes the page.

        Example: sartor compress "torchvision:mobilenet_v2?num_classes=10&width_mult=0.25"
        --data "digits?channels=3&resolution=32" --budget 60%
        """
        settings, training = settings_from(config, set_), settings_from(None, recipe)
        if not budget:
            raise UserError("compress needs a budget; add one such as --budget 60% (of its latency), or --budget 5ms.")
        SETTINGS[METHOD].of(settings).sensible(len(budget), 0)
        shares = {limit: _share(limit) for limit in budget if limit.endswith("%")}
        for limit in budget:
            if limit not in shares:
                parse_limit(limit, also="60%")

        from sartor import targets, tasks, workflow
        from sartor.spaces.grafts import Grafts
        from sartor.training.recipe import Recipe

        Recipe().override(training)
        task, found_target = tasks.get(data, device), targets.get(target)
        channels, height, width = getattr(task, "shape", (0, 0, 0))
        if not channels or height != width:
            raise UserError(f"networks of square images can be compressed; the data {data} are something else.")
        space = Grafts(
            model,
            weights=None if weights is None else str(weights),
            channels=channels,
            resolution=height,
            candidates=candidates,
        )
        how = " (torchvision's: ?num_classes=N)" if model.startswith("torchvision:") else ""
        workflow.fits_task(space, task, named=f"the network {model}", advice=f"give one that fits{how}")
        if distil and not space.trained:
            raise UserError(f"{model} came with no weights, so that there is nothing to distil; give --weights.")

        def work(opened: Run) -> dict[str, Json]:
            where = opened.path
            given, stored = where / "given.json", ["--store", store] if store else []
            write_json(given, space.to_json(space.unchanged))

            tested: dict[str, Any] = {}
            if space.trained:
                say_step("test the network as it came")
                with Run(where / "as-it-came", {"verb": "test", "name": "as it came"}, seed) as came:
                    tested = workflow.test_network(space, space.unchanged, task)
                    write_json(came.path / "result.json", {"verb": "test", "name": "as it came", **tested})
                typer.echo(f"{tested['metric']} {tested['value']:.4g}", err=True)

            limits = list(budget)
            if shares:
                say_step("measure the network as it is, in several sittings")
                own = _usual(space, found_target, store, str(where.resolve()))
                if own is None:
                    raise UserError(f"{model} could not be measured on {target}; see `sartor measure {given}`.")
                limits = [f"{shares[limit] * own:.4g}ms" if limit in shares else limit for limit in budget]

            asked = [limit if limit == one else f"{one} of its latency, {limit}" for one, limit in zip(budget, limits)]
            say_step(f"search grafts within {' and '.join(asked)}")
            common = ("--data", data, "--device", device)
            found = run_verb(
                "search", where / "search", seed, METHOD, "--space", given, *common,
                *(word for limit in limits for word in ("--budget", limit)), "--target", target,
                "--predictor", predictor, "--samples", samples, *stored, *set_words(settings),
            )  # fmt: skip
            begin = ["--tuned"] if space.trained else []
            begin += ["--teacher", "model"] if distil else []
            say_step("train what was found" + (", from the weights of the model" if begin else ""))
            compressed = where / "compressed"
            trained = run_verb(
                "train", compressed, seed, where / "search", "--name", "compressed", *common, *begin,
                *set_words(training),
            )  # fmt: skip
            if space.trained:
                value = tested["value"]
            else:
                say_step("train the network as it was, with the same recipe")
                value = run_verb(
                    "train", where / "as-it-was", seed, given, "--name", "as it was", *common, *set_words(training)
                )["value"]  # fmt: skip
            say_step("measure both in one sitting, and export")
            side = run_verb(
                "measure", where / "compare", seed, given, compressed, "--target", target, *stored,
                "--sitting", f"compare {where.resolve()}",
            )["members"]  # fmt: skip
            exported = run_verb("export", where / "export", seed, compressed)
            tells = getattr(found_target, "profile", None)
            archs = {"before": space.unchanged, "after": tuple(found["architecture"])}
            profile = {} if tells is None else {word: tells(space, arch) for word, arch in archs.items()}
            chosen = dict(zip((slot.name for slot in space.slots), found["architecture"]))
            useless = found["extras"]["useless"]
            blocks = []
            for slot in space.slots:
                what = WORDS[slot.candidates[chosen[slot.name]]]
                slower = what == WORDS["keep"] and "graft" in useless[slot.name]
                blocks.append({"block": slot.name, "became": SLOWER if slower else what})
            blocks += [{"block": name, "became": f"refused: {why}"} for name, why in space.anatomy.refused.items()]
            old, new = side[0]["latency_ms"], side[1]["latency_ms"]
            return {
                "verdict": _verdict(
                    trained["metric"], value, trained["value"], old, new, _milliseconds(budget, shares, old)
                ),
                "target": found_target.id,
                **{key: found[key] for key in FOUND},
                "blocks": blocks,
                "profile_ms": profile,
                "latency_ms_before": old,
                "latency_ms_after": new,
                "speedup_measured": None if None in (old, new) else old / new,
                "metric": trained["metric"],
                "value_before": value,
                "value_after": trained["value"],
                "max_abs_error": workflow.collapse_error(compressed, task),
                "files": exported["files"],
                "page": str(where / "report.html"),
            }

        job: dict[str, Any] = {
            "verb": "compress",
            "space": space.spec(),
            **({} if weights is None else {"weights": digest(weights)}),
            "data": task.describe(),
            "target": found_target.id,
            "budgets": budget,
            "predictor": predictor,
            "samples": samples,
            "settings": SETTINGS[METHOD].of(settings).model_dump(),
            "recipe": training,
            "distil": distil,
        }
        result = run_job(job, seed, run, json, work)

        from sartor.report import report

        report([Path(result["run"])], Path(result["page"]))


def _usual(space: Any, target: Any, store: str | None, name: str) -> float | None:
    """Milliseconds of the network as it is, the median of several sittings; None where it cannot be measured."""
    from statistics import median

    from sartor import workflow

    with workflow.opened(store) as kept:
        sittings = [
            workflow.remeasure(space, target, [space.unchanged], ["latency_ms"], kept, f"before {name} {i}")[0]
            for i in range(SITTINGS)
        ]
    there = [ms for one in sittings if (ms := one["latency_ms"]) is not None]
    return median(there) if there else None


def _milliseconds(budget: list[str], shares: dict[str, float], old: float | None) -> dict[str, float]:
    """The limits on latency as they were typed, in milliseconds; shares are of the network as it was, side by side."""
    typed = {limit: parse_limit(limit) for limit in budget if limit not in shares}
    absolute = {limit: value for limit, (kind, value) in typed.items() if kind.name == "latency_ms"}
    return {**absolute, **({limit: share * old for limit, share in shares.items()} if old is not None else {})}


def _verdict(
    metric: str, before: float, after: float, old: float | None, new: float | None, limits: dict[str, float]
) -> str:
    """What became of quality and latency, and of what was asked for, as they were measured side by side."""
    quality = f"{metric} {before:.4g} before, {after:.4g} after"
    if old is None or new is None:
        return f"{quality}; latency was not measured"
    asked = f", {' and '.join(limits)} was asked for" if limits else ""
    missed = " and missed" if any(new > limit * (1 + SPARE) for limit in limits.values()) else ""
    there = "; the network as it was kept that, too" if limits and all(old <= ms for ms in limits.values()) else ""
    return f"{quality}; {100 * new / old:.1f}% of the latency, side by side{asked}{missed}{there}"


def _share(limit: str) -> float:
    """The fraction that a percentage says."""
    try:
        share = float(limit.removesuffix("%")) / 100
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise UserError(f"budget {limit!r} is no share of the latency; give more than 0% and less than 100%.")
    return share
