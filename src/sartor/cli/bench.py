"""`sartor bench`: methods and predictors on public tables, in which every answer is known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sartor.cli.common import Data, Device, JsonFlag, RunDir, Seed, digest, run_job
from sartor.core import Json, UserError

WHOLE = ("nas-bench-201", "nas-bench-macro")  # tables that hold every network of their space
TableFile = Annotated[Path, typer.Option("--table", help="Parquet or CSV file.")]


def add(app: typer.Typer) -> None:
    words = (
        "Compare methods, or predictors, on a public table.\n\nExample: sartor bench nas-bench-201 --table FILE "
        "--method evolution --accuracy cifar10_valid_acc_12ep --test cifar10_test_acc_200ep"
    )
    group = typer.Typer(help=words, no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(group, name="bench")
    for space in WHOLE:
        _add(group, space)
    group.command()(predictors)
    group.command()(order)
    group.command(name="space")(worth)


def _add(group: typer.Typer, space: str) -> None:
    def methods(
        table: TableFile,
        method: Annotated[
            str, typer.Option(help="random, evolution, mathnas, mathnas-paper, mathnas-blocks, lana or brp-nas.")
        ],
        accuracy: Annotated[str, typer.Option(help="Column that the method may ask about.")],
        test: Annotated[str | None, typer.Option(help="Column that grades; default: the same.")] = None,
        cost: Annotated[list[str] | None, typer.Option(help="Column that a budget is on. Repeatable.")] = None,
        budget: Annotated[
            list[str] | None,
            typer.Option(help="Upper limit with its unit: 3ms, 50MMACs; one for each --cost, in order."),
        ] = None,
        queries: Annotated[int, typer.Option(min=1, help="Networks whose accuracy may be asked.")] = 781,
        seeds: Annotated[int, typer.Option(min=1, help="Searches, each with a seed of its own.")] = 5,
        cost_rows: Annotated[
            int | None, typer.Option(min=2, help="Predict costs from that many rows; default: they are known.")
        ] = None,
        run: RunDir = None,
        seed: Seed = 0,
        json: JsonFlag = False,
    ) -> None:
        from sartor import tables
        from sartor.bench import Job, compare_methods

        job = Job(method, accuracy, test or accuracy, tuple(cost or ()), tuple(budget or ()), queries, seeds, cost_rows)
        known = tables.load(space, table)
        identity = {"verb": "bench", "name": space, "table": digest(table), **vars(job)}
        found = run_job(
            identity, seed, run, json, lambda opened: {"table": str(table), **compare_methods(known, job, opened)}
        )
        if not json:
            _show(found)

    methods.__doc__ = f"""Search {space} with a method that only asks for scores, beside random search and evolution.

        Example: sartor bench {space} --table FILE --method evolution --accuracy COLUMN --seeds 10
        """
    group.command(name=space)(methods)


def _show(found: dict[str, Json]) -> None:
    """The method and the baselines as a table, means over seeds."""
    from rich.console import Console
    from rich.table import Table

    budgets = [] if found["budget_met_share"] is None else ["budgets met"]
    costs = ["costs asked"] if found["cost_columns"] else []
    columns = ["test (%)", "below the best", "Spearman of the rest", *budgets, "accuracies asked", *costs]
    table = Table(title=f"{found['test_column']}, {found['seeds']} seeds; best {found['optimum_test']:.2f} %")
    table.add_column("method", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=name == "test (%)")
    rows = {row["method"]: row for row in (found, *found["baselines"].values())}
    for row in rows.values():
        mean, spread, order = row["test_mean"], row["test_std"], row["spearman_mean"]
        cells = {
            "test (%)": "none" if mean is None else f"{mean:.2f}" + ("" if spread is None else f" ± {spread:.2f}"),
            "below the best": "" if mean is None else f"{row['optimum_test'] - mean:.2f}",
            "Spearman of the rest": "" if order is None else f"{order:.3f}",
            "budgets met": f"{100 * (row['budget_met_share'] or 0):.0f} %",
            "accuracies asked": f"{row['accuracy_rows']:.0f}",
            "costs asked": f"{row['cost_rows']:.0f}",
        }
        table.add_row(row["method"], *(cells[name] for name in columns))
    Console().print(table)


def predictors(
    table: TableFile,
    space: Annotated[str, typer.Option(help="nas-bench-201, nas-bench-macro, fbnet, ofa-mobilenetv3 or hat.")],
    cost: Annotated[str, typer.Option(help="Column to predict.")],
    train: Annotated[str, typer.Option(help="Rows to train on, sizes separated by commas.")] = "10,50,100,900",
    seeds: Annotated[int, typer.Option(min=2, help="Random training sets of each size.")] = 5,
    run: RunDir = None,
    seed: Seed = 0,
    json: JsonFlag = False,
) -> None:
    """Compare every predictor, and the one sartor would use, on rows of a table they were not fitted on.

    Example: sartor bench predictors --table FILE --space fbnet --cost gold_6226_ms --train 100,900
    """
    from sartor import tables
    from sartor.bench import compare_predictors
    from sartor.cli.fit import show

    sizes = _sizes(train)
    known = tables.load(space, table)
    identity = {
        "verb": "bench",
        "name": "predictors",
        "table": digest(table),
        "space": known.space.spec(),
        "cost": cost,
        "train": sizes,
        "seeds": seeds,
    }
    found = run_job(
        identity,
        seed,
        run,
        json,
        lambda _: {"table": str(table), **compare_predictors(known, cost, sizes, seeds, seed)},
    )
    for size in sizes:
        rows = [row for row in found["rows"] if row["train"] == size]
        show({**found, "metric": f"{cost}, {size} to train on,", "noise_floor": None, "default": None, "rows": rows})


def order(
    source: Annotated[Path, typer.Argument(metavar="RUN", help="Run of a search by spos or supernet-shifting.")],
    data: Data = "digits",
    table: Annotated[Path | None, typer.Option("--table", help="Parquet or CSV file about the space.")] = None,
    accuracy: Annotated[str | None, typer.Option(help="Column of the table that is the truth.")] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Instead of a table: train each network for so many epochs.")
    ] = None,
    networks: Annotated[int, typer.Option(min=10, help="Networks drawn at random.")] = 100,
    best: Annotated[int, typer.Option(min=3, help="How many are the best few.")] = 10,
    device: Device = "cpu",
    run: RunDir = None,
    seed: Seed = 0,
    json: JsonFlag = False,
) -> None:
    """How well a supernet keeps the order of networks, over all and among the best, before and after it was shifted.

    Example: sartor bench order runs/mine --data cifar10:PATH --table FILE --accuracy cifar10_test_acc_200ep
    """
    from sartor.quality.saved import of_run

    graded = table is not None and accuracy is not None
    if (graded == (epochs is not None)) or ((table is None) != (accuracy is None)):
        raise UserError("the truth is --table FILE with --accuracy COLUMN, or --epochs N of training; give one.")
    supernet = of_run(source)

    from sartor import tables, tasks, workflow
    from sartor.core import Score
    from sartor.quality.trained import TrainedScore
    from sartor.training.recipe import Recipe
    from sartor.training.tasks import for_search

    space, _ = workflow.load_architecture(source)
    task = tasks.get(data, device)
    workflow.fits_task(space, task)
    view = for_search(task)
    told: dict[str, Json]
    if table is not None and accuracy is not None:
        truth: Score = tables.load(space, table).score(accuracy)
        told = {"table": digest(table), "column": accuracy}
    else:
        assert epochs is not None
        truth, told = TrainedScore(space, view, Recipe(epochs=epochs), seed=seed), {"epochs": epochs}
    identity = {
        "verb": "bench",
        "name": "order",
        "of": {"run": str(source.resolve()), "supernet": digest(supernet)},
        "data": task.describe(),
        "truth": told,
        "networks": networks,
        "best": best,
    }
    found = run_job(
        identity,
        seed,
        run,
        json,
        lambda opened: workflow.order_report(
            source, truth, view, opened, networks=networks, best=best, table=table is not None
        ),
    )
    if not json:
        _show_order(found)


def _show_order(found: dict[str, Json]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Kendall's tau (95 % of resampled networks)")
    for name in ("supernet", "over all", f"among the {found['best']} best"):
        table.add_column(name)
    for row in found["rows"]:
        taus = (row["global"], row["local"])
        cells = ["-" if t["tau"] is None else f"{t['tau']:.2f} ({t['low']:.2f} to {t['high']:.2f})" for t in taus]
        table.add_row(f"{row['supernet']} the search", *cells)
    Console().print(table)


def worth(
    source: Annotated[Path, typer.Argument(metavar="RUN", help="Run of network-space-search.")],
    data: Data = "digits",
    networks: Annotated[
        int, typer.Option(min=10, help="Of each origin, of any cost and as many near the budget.")
    ] = 100,
    epochs: Annotated[int, typer.Option(min=1, help="That the supernet is trained for that grades them.")] = 50,
    batch_size: Annotated[int, typer.Option(min=2, help="Of that training.")] = 64,
    predictor: Annotated[
        Path | None, typer.Option(help="Of the budget's metric; default: the one that the run fitted.")
    ] = None,
    device: Device = "cpu",
    run: RunDir = None,
    seed: Seed = 0,
    json: JsonFlag = False,
) -> None:
    """What networks of a space that was found are worth, beside those of the Expanded Space and of RegNet's principle.

    Example: sartor bench space runs/space --data cifar10:PATH
    """
    from sartor import tasks, workflow
    from sartor.training.tasks import for_search

    windows, arch, budget = workflow.found_space(source, predictor)
    task = tasks.get(data, device)
    workflow.fits_task(windows, task)
    options = {"networks": networks, "epochs": epochs, "batch_size": batch_size}
    fitted = predictor or source / f"predictor-{budget.score.metric.name}.safetensors"
    identity = {
        "verb": "bench",
        "name": "space",
        "of": windows.to_json(arch),
        "budget": str(budget),
        **({"predictor": digest(fitted)} if fitted.exists() else {}),
        "data": task.describe(),
        **options,
    }
    view = for_search(task)
    found = run_job(
        identity, seed, run, json, lambda opened: workflow.space_report(windows, arch, budget, view, opened, **options)
    )
    if not json:
        _show_space(found)


def _show_space(found: dict[str, Json]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{found['metric']} of networks within 10 % of the budget; draws until one is")
    for name in ("networks of", "how many", found["metric"], "draws", "beaten by, of all"):
        table.add_column(name)
    for row in found["rows"]:
        quality = "-" if row["near"] is None else f"{row['near']:.2f}"
        draws = "-" if row["draws"] is None else f"{row['draws']:.1f}"
        beaten = "-" if row["beaten"] is None else f"{100 * row['beaten']:.1f} %"
        table.add_row(row["of"], str(row["networks"]), quality, draws, beaten)
    Console().print(table)


def _sizes(text: str) -> list[int]:
    try:
        sizes = [int(word) for word in text.split(",")]
    except ValueError:
        sizes = []
    if min(sizes, default=0) < 2:
        raise UserError(f"--train {text!r} is no list of whole numbers from 2 up; write it like 10,50,100,900.")
    return sizes
