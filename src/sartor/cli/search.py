"""`sartor search METHOD`: a network inside a budget. One sub-command a method, its settings in the help."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from sartor.cli import common
from sartor.cli.common import Config, Data, Device, JsonFlag, RunDir, Samples, Seed, Set, Space, StoreRef
from sartor.core import Json, Score, UserError, metric, parse_limit
from sartor.core.units import COUNTED
from sartor.methods import METHODS, SETTINGS
from sartor.runs import write_json

MEASURED = "measured"
TRUSTED = 3.0  # percent: what counts as equal latency
logger = logging.getLogger("sartor")
Budgets = Annotated[
    list[str] | None, typer.Option("--budget", help="A limit with its unit: 20ms, 1.5mJ, 300MMACs. Repeatable.")
]
TARGET = "onnxruntime:cpu?threads=1&batch=1"
Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        help=f"RUNTIME:DEVICE[?threads=1&batch=1], see `sartor targets`. Default: {TARGET}. Several are grouped: one "
        "search a group of devices that agree, then a scaled network for each; a budget for one is TARGET:20ms.",
    ),
]


def add(app: typer.Typer) -> None:
    words = (
        "Search for a network inside a budget.\n\nExample: sartor search lightnas --space mobilenet:tiny --budget 0.1ms"
    )
    group = typer.Typer(help=words, no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(group, name="search")
    for name in METHODS:
        _add(group, name)


def _add(group: typer.Typer, method: str) -> None:
    kind = SETTINGS[method]
    objectives: Any = typer.Option(
        None,
        "--objective",
        help="A cost that a front is wanted of, or that is weighed where it has no limit: latency_ms, macs. "
        "Repeatable.",
        hidden=not (kind.fronts or kind.weighs),
    )
    oracles: Any = typer.Option(
        None,
        help="FILE.py:FUNCTION[?metric=accuracy] that grades networks instead of a supernet trained on the "
        "data; it gets the space and an architecture.",
        hidden=not kind.asks,
    )
    sources: Any = typer.Option(
        None,
        "--from",
        help="A run whose supernet is taken instead of training one; on other data with a new classifier.",
        hidden=not kind.transfers,
    )

    def search(
        space: Space,
        budget: Budgets = None,
        objective: list[str] | None = objectives,
        data: Data = "digits",
        target: Targets = None,
        predictor: Annotated[
            str,
            typer.Option(
                help="auto, all, a name that `sartor fit` takes, or a file that it wrote; measured: objectives are "
                "measured on the target while it searches."
            ),
        ] = "auto",
        samples: Samples = 1000,
        two_sided: Annotated[bool, typer.Option("--two-sided", help="Land within 0.5 % on both sides.")] = False,
        oracle: str | None = oracles,
        from_: Path | None = sources,
        paper: Annotated[bool, typer.Option("--paper", help="Every setting as published.")] = False,
        set_: Set = None,
        config: Config = None,
        device: Device = "cpu",
        store: StoreRef = None,
        run: RunDir = None,
        seed: Seed = 0,
        json: JsonFlag = False,
    ) -> None:
        values = common.settings_from(config, set_)
        if from_ is not None:
            values["source"] = str(from_)
        if target and len(target) > 1:
            from sartor.cli.devices import search_devices

            if objective or oracle or Path(predictor).exists():
                raise UserError("several targets have a budget and a predictor of their own each; leave out "
                                "--objective, --oracle and predictor files, or give one target.")  # fmt: skip
            flags = [*(["--two-sided"] if two_sided else []), *(["--paper"] if paper else [])]
            words = ["--data", data, "--predictor", predictor, "--samples", samples, "--device", device]
            words += [*flags, *common.set_words(values)]
            search_devices(method, space, target, budget or [], samples, store, words, run, seed, json)
            return
        run_search(
            method, space, budget or [], objective or [], data, target[0] if target else TARGET, predictor, samples,
            two_sided, oracle, paper, values, device, store, run, seed, json,
        )  # fmt: skip

    search.__doc__ = _help(method)
    group.command(name=method)(search)


def _help(method: str) -> str:
    kind = SETTINGS[method]
    data = "digits" if kind.example_space.endswith(":tiny") else "cifar10:PATH"
    return (
        f"Search with {method}; docs/methods/{method}.md explains it.\n\n"
        f"Example: sartor search {method} --space {kind.example_space} --data {data} --budget {kind.example_budget} "
        f"--set {kind.example}\n\n{common.settings_help(method)}"
    )


def run_search(
    method: str,
    space: str,
    limits: list[str],
    objectives: list[str],
    data: str,
    target: str,
    predictor: str,
    samples: int,
    two_sided: bool,
    oracle: str | None,
    paper: bool,
    values: dict[str, Any],
    device: str,
    store: str | None,
    where: Path | None,
    seed: int,
    as_json: bool,
) -> dict[str, Json]:
    """Search as the command line does, and print the result."""
    kind = SETTINGS[method]
    if objectives and not (kind.fronts or (kind.weighs and not limits)):
        fronts = ", ".join(name for name, other in SETTINGS.items() if other.fronts)
        weighs = ", ".join(name for name, other in SETTINGS.items() if other.weighs)
        raise UserError(
            f"--objective {objectives[0]} is for a method that looks for a front ({fronts}), or weighs a cost "
            f"({weighs}) and has no limit on any; {method} was given {len(limits)} budgets."
        )
    if "source" in values and not kind.transfers:
        able = ", ".join(name for name, other in SETTINGS.items() if other.transfers)
        raise UserError(f"--from is for a method that begins with another run's supernet ({able}); leave it out.")
    if predictor == MEASURED:
        on = [limit for limit in limits if parse_limit(limit)[0].name not in COUNTED]
        if on or not kind.fronts:
            raise UserError(
                f"--predictor {MEASURED} is for objectives of a front; limits{f' such as {on[0]}' if on else ''} are "
                "asked about thousands of networks: take auto."
            )
    if oracle and not kind.asks:
        asking = ", ".join(name for name, other in SETTINGS.items() if other.asks)
        raise UserError(f"--oracle is for a method that asks about networks ({asking}); leave it out of {method}.")
    metrics = dict.fromkeys([*(parse_limit(limit)[0].name for limit in limits), *(metric(o).name for o in objectives)])
    engine = kind.of(values, paper=paper)
    engine.sensible(len(limits), len(objectives))
    settings = engine.model_dump()

    from sartor import spaces, targets, tasks, workflow
    from sartor.runs import Run
    from sartor.spaces.complexity import Complexity

    found_space, found_target = spaces.get(space), targets.get(target)
    engine.follows(found_space)
    if not limits:
        chooser: Any = METHODS[method]
        chooser.of(values, paper=paper).check(found_space, [])  # before anything is measured
    _check_predictor(predictor)
    if predictor == MEASURED and not any(name not in COUNTED for name in objectives):
        raise UserError(f"--predictor {MEASURED} is for an --objective such as latency_ms; add one, or leave it out.")
    grader, told = workflow.oracle(oracle, found_space) if oracle else (None, None)
    task = None if oracle else tasks.get(data, device)
    if task is not None:
        workflow.fits_task(found_space, task)
        engine.suits(found_space, task)
    measured_metrics = [name for name in metrics if name not in COUNTED]

    def work(run: Run) -> dict[str, Json]:
        scores = {name: _predictor(predictor, name, run) for name in measured_metrics}
        budgets = workflow.budgets_of(limits, scores, found_space, two_sided)
        weighed: list[Score] = [scores.get(name) or Complexity(found_space, name) for name in objectives]
        weighed += [grader] if grader else []
        found = workflow.search(method, found_space, task, budget=budgets, objectives=weighed, run=run, **settings)
        with workflow.opened(store) as kept:
            names = [*measured_metrics, "latency_ms"]
            sitting = f"check {run.path.resolve()}"
            fresh = workflow.remeasure_found(found, budgets, found_target, names, kept, sitting)
            unfolded = workflow.remeasure_unfolded(found, found_target, kept, sitting)
        workflow.keep(found, run.path)
        result = workflow.describe_found(found, fresh, settings, found_target.id)
        result |= {"measured_unfolded": unfolded} if unfolded else {}
        for name, gap in result["measured_gap_percent"].items():
            if gap > TRUSTED or abs(gap - result["gap_percent"][name]) > TRUSTED:
                logger.warning(
                    "the network found measures %+.1f %% against its %s limit, predicted was %+.1f %%: "
                    "fit the predictor on more --samples, or measure on a quieter machine",
                    gap,
                    name,
                    result["gap_percent"][name],
                )
        typed = {
            "target": (target, TARGET),
            "samples": (samples, 1000),
            "device": (device, "cpu"),
            "store": (store, None),
        }
        again = [word for limit in limits for word in ("--budget", limit)]
        again += [word for key, (value, usual) in typed.items() if value != usual for word in (f"--{key}", str(value))]
        again += ["--two-sided"] if two_sided else []
        return {**result, "next": workflow.follow_up(found, run.path, "NAME|PATH" if oracle else data, again)}

    def _predictor(name: str, metric_name: str, run: Run) -> Any:
        from sartor.cli.fit import show
        from sartor.predictors import PREDICTORS, load

        if name == MEASURED:
            return workflow.Measured(found_space, found_target, metric_name, store)
        saved = run.path / f"predictor-{metric_name}.safetensors"
        if name not in PREDICTORS and name not in ("auto", "all"):
            given = load(Path(name), space=found_space, target_id=found_target.id)
            given.save(saved)  # for what is asked about the run
            return given
        if not saved.exists():
            near = next((limit for kind, limit in map(parse_limit, limits) if kind.name == metric_name), None)
            fit = workflow.fit_predictor(
                name, found_space, found_target,
                samples=samples, metric_name=metric_name, near=near, store=store, seed=seed,
            )  # fmt: skip
            write_json(run.path / "fit.json", fit.report)
            show(fit.report)
            fit.predictor.save(saved)
        return load(saved, space=found_space, target_id=found_target.id)

    job = {
        "verb": "search",
        "method": method,
        "space": found_space.spec(),
        "target": found_target.id,
        **({"oracle": told} if task is None else {"data": task.describe()}),
        "budgets": limits,
        **({"objectives": objectives} if objectives else {}),
        "two_sided": two_sided,
        "predictor": predictor,
        "samples": samples,
        "settings": settings,
    }
    return common.run_job(job, seed, where, as_json, work)


def _check_predictor(name: str) -> None:
    from sartor.predictors import PREDICTORS

    if name not in PREDICTORS and name not in ("auto", "all", MEASURED) and not Path(name).exists():
        known = ", ".join(["auto", "all", MEASURED, *PREDICTORS])
        raise UserError(f"--predictor {name!r} is neither one of {known} nor a file; fit one with `sartor fit`.")
