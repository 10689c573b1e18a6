"""The command line: `sartor VERB ...`. Verbs are thin; what they need is imported when they run."""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from typing import Annotated, Any

import typer

from sartor import __version__
from sartor.core.errors import UserError, unknown

app = typer.Typer(
    name="sartor",
    help="Neural networks made to measure for your hardware.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
# typer brings its own click or uses the installed one, depending on its version
_UsageError: type[Any] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")
INTERRUPTED = 130
VERBS = (
    "quickstart", "spaces", "targets", "measure", "fit", "search", "refine", "compress", "scale", "adapt",
    "train", "export", "report", "study", "bench",
)  # fmt: skip


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _start(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    del version  # said and done by its callback


for _verb in VERBS:
    import_module(f"sartor.cli.{_verb}").add(app)


def main() -> None:
    """Run a verb: exit code 0, 2 for malformed input, 3 for an unreachable budget, 130 when interrupted."""
    logging.basicConfig(stream=sys.stderr, format="%(message)s", level=logging.WARNING)
    logging.getLogger("sartor").setLevel(logging.INFO)
    try:
        code = app(prog_name="sartor", standalone_mode=False)
    except UserError as error:
        code = _say(str(error), error.exit_code)
    except _UsageError as error:
        code = _usage(error)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:
        code = 0
    if code == INTERRUPTED:  # some versions of typer return it instead of raising
        _say("interrupted; the same command resumes.", code)
    sys.exit(code or 0)


def _say(message: str, code: int) -> int:
    sys.stderr.write(f"sartor: {message}\n")
    return code


def _usage(error: Any) -> int:
    """One line about a command line that cannot be read; the help itself where nothing was asked for."""
    message, context = error.format_message(), getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        sys.stderr.write(f"{message}\n")
        return 2
    commands = getattr(getattr(context, "command", None), "commands", None)
    if commands and message.startswith("No such command"):
        kind = {"search": "method", "bench": "benchmark"}.get(str(getattr(context, "info_name", "")), "verb")
        return _say(str(unknown(kind, message.split("'")[1], commands)), 2)
    message = " ".join(message.split()).rstrip(".")
    return _say(f"{message}; see {context.command_path if context else 'sartor'} --help.", 2)
