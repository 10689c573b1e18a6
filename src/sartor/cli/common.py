"""What every verb shares: options, run directories, settings from text, one JSON object at the end."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from sartor import __version__
from sartor.core import METRICS, Json, UserError, show
from sartor.runs import Run, read_json, strict, write_json

JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on stdout.")]
RunDir = Annotated[
    Path | None, typer.Option("--run", help="Run directory; the same command resumes it. Default: runs/VERB-HASH.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Root of every random choice.")]
Space = Annotated[str, typer.Option("--space", help="NAME[:PRESET][?option=value&...] or a JSON file.")]
TargetRef = Annotated[
    str, typer.Option("--target", help="RUNTIME:DEVICE[?threads=1&batch=1&precision=fp32], see `sartor targets`.")
]
Data = Annotated[
    str, typer.Option("--data", help="digits, cifar10:PATH, imagefolder:PATH?classes=100, parquet:PATH ...")
]
StoreRef = Annotated[
    str | None, typer.Option("--store", help="Measurements: SQLite file or database URL. Default: the user's cache.")
]
Samples = Annotated[int, typer.Option("--samples", min=10, help="Networks to measure.")]
Device = Annotated[str, typer.Option("--device", help="Where networks are trained: cpu, cuda.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="key=value, repeatable; unknown keys are errors.")]
Config = Annotated[Path | None, typer.Option("--config", help="YAML or JSON file of settings; --set goes on top.")]


def settings_from(config: Path | None, pairs: Sequence[str] | None) -> dict[str, Any]:
    """Settings of a file, overridden by key=value pairs. Raises UserError for what cannot be read."""
    import yaml

    values: dict[str, Any] = {}
    if config is not None:
        try:
            values = yaml.safe_load(config.read_text()) or {}
        except FileNotFoundError:
            raise UserError(f"there is no file {config}; check --config.") from None
        except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
            raise UserError(f"{config} is not YAML or JSON ({str(error).splitlines()[0]}); write key: value.") from None
        if not isinstance(values, dict):
            raise UserError(f"{config} must hold key: value pairs, not a {type(values).__name__}.")
    for pair in pairs or ():
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise UserError(f"--set {pair!r} is not key=value; write it like --set epochs=30.")
        try:
            values[key] = yaml.safe_load(text)
        except yaml.YAMLError:
            values[key] = text
        if isinstance(values[key], str):  # YAML reads 1e-3 as text
            with contextlib.suppress(ValueError):
                values[key] = float(text)
    return values


def default_run(job: Mapping[str, Json], seed: int) -> Path:
    """`runs/VERB-HASH`: the same job, the same directory."""
    key = hashlib.sha256(json.dumps([job, seed], sort_keys=True).encode()).hexdigest()[:8]
    return Path("runs") / f"{job['verb']}-{key}"


def run_job(
    job: Mapping[str, Json], seed: int, where: Path | None, as_json: bool, work: Callable[[Run], dict[str, Json]]
) -> dict[str, Json]:
    """Do a job in its run directory, or tell what it found when it is done already; print and return the result."""
    path = where or default_run(job, seed)
    with Run(path, job, seed) as run:
        done = run.path / "result.json"
        if not done.exists():
            began = time.monotonic()
            found = work(run)
            head = {"verb": job["verb"], "run": str(path), "seed": seed, "seconds": round(time.monotonic() - began, 3)}
            write_json(done, {**head, "sartor_version": __version__, **found})
        result: dict[str, Json] = {**read_json(done), "run": str(path)}
    emit(result, as_json)
    return result


_FOR_PROGRAMS = (
    "settings", "architecture", "architectures", "rows", "points", "verb", "sartor_version", "seed",
    "argmax", "extras",
    "steps", "roofline", "gamma", "r2", "kendall", "baselines", "test_mean", "test_std", "spearman_mean",
    "budget_met_share", "optimum_test", "accuracy_rows", "cost_rows",
)  # fmt: skip


def emit(result: Json, as_json: bool) -> None:
    """One JSON object on stdout, or the same for people."""
    if as_json:
        json.dump(strict(result), sys.stdout, allow_nan=False)
        sys.stdout.write("\n")
        return
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    last = {key: result[key] for key in ("run", "next") if key in result}
    first = {key: result[key] for key in ("verdict",) if key in result}
    for key, value in {**first, **{k: v for k, v in result.items() if k not in last}, **last}.items():
        if key in _FOR_PROGRAMS or value is None or value in ({}, []):
            continue
        name = f"[bold]{key.replace('_', ' ')}[/bold]"
        if isinstance(value, list) and value and isinstance(value[0], dict):
            console.print(name)
            console.print(_table(value))
        elif isinstance(value, dict) and value and all(isinstance(v, dict) for v in value.values()):
            console.print(name)
            console.print(_table([{"": inner, **v} for inner, v in value.items()]))
        elif key == "choices":
            console.print(f"{name}  {' '.join(map(_plain, value.values()))}")
        elif isinstance(value, dict) and len(value) > 1 and key != "space":
            console.print(name)
            for inner, v in value.items():
                if v is not None:
                    of = key if key.endswith("percent") else inner
                    console.print(f"  {inner.replace('_', ' ')}  {_plain(v, of)}".rstrip())
        else:
            console.print(f"{name}  {_plain(value, key)}")


def _table(rows: Sequence[Mapping[str, Json]]) -> Any:
    from rich.table import Table

    keys = dict.fromkeys(
        key for row in rows for key in row if key not in ("space", "schema", "choices", "architecture")
    )
    columns = sorted(keys, key=lambda key: key not in ("block", "network", "predictor"))  # what a row is about
    table = Table()
    for c in columns:  # long words, as paths are, go on in the next line
        table.add_column(c.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*("" if row.get(c) is None else _plain(row[c], c) for c in columns))
    return table


def _plain(value: Json, name: str = "") -> str:
    """A value in words; name: its key, which says the unit where it is a metric."""
    if isinstance(value, float):
        if name.endswith("percent"):
            return f"{value:.2f} %"
        return show(value, METRICS[name]) if name in METRICS else f"{value:.4g}"
    if isinstance(value, dict):
        inner = {k: v for k, v in value.items() if v is not None and k != "architecture"}
        if name == "space":  # a space of given networks spells out each of them
            inner = {k: v for k, v in inner.items() if not isinstance(v, list | dict)}
        return ", ".join(f"{k} {_plain(v, name if name.endswith('percent') else k)}" for k, v in inner.items())
    if isinstance(value, list):
        whole = all(isinstance(v, int) for v in value)
        apart = "; " if any(isinstance(v, list) for v in value) else ", "
        return " ".join(map(str, value)) if whole else apart.join(_plain(v) for v in value)
    return str(value).replace("[", r"\[")


def settings_help(method: str) -> str:
    """The settings of a method, one a line, for the help of a verb."""
    from sartor.methods import SETTINGS

    lines = ["Settings (--set key=value):", ""]
    for name, field in SETTINGS[method].model_fields.items():
        lines.append(f"\b\n  {name} = {field.default}" + (f"   {field.description}" if field.description else ""))
        lines.append("")
    return "\n".join(lines)


# ---------------------------------------------------------------------- verbs that are made of verbs

FOUND = (
    "space", "architecture", "choices", "budgets", "predicted", "measured", "gap_percent", "measured_gap_percent",
    "argmax", "landing", "feasible",
)  # fmt: skip
"""What a verb that searches on the way says of the search."""


def digest(file: Path) -> str:
    """What tells a file from others, whatever its name."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def say_step(what: str) -> None:
    """Name the next step of several, on stderr."""
    typer.echo(f"\n== {what}", err=True)


def set_words(values: Mapping[str, Json]) -> list[str]:
    """Settings as `--set key=value` words."""
    return [word for key, value in values.items() for word in ("--set", f"{key}={json.dumps(value)}")]


def run_verb(name: str, where: Path, seed: int, *words: object) -> dict[str, Json]:
    """Run a verb as the command line does, in a directory of its own, so that it resumes by itself; its result."""
    from sartor.cli import app

    args = [name, *map(str, words), "--run", str(where), "--seed", str(seed)]
    typer.echo(f"$ sartor {shlex.join(args)}", err=True)
    with contextlib.redirect_stdout(io.StringIO()):  # the one result of the whole says what matters of it
        if app(args, standalone_mode=False):  # 130: typer turns Ctrl-C into an exit code
            raise KeyboardInterrupt
    result: dict[str, Json] = read_json(where / "result.json")
    return result
