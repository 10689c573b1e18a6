"""`sartor targets`: what can be measured on this machine."""

from __future__ import annotations

import typer

from sartor.cli.common import JsonFlag, emit


def add(app: typer.Typer) -> None:
    @app.command()
    def targets(json: JsonFlag = False) -> None:
        """List what can be measured on this machine.

        Each target with its id and metrics, or why it cannot be used.

        Example: sartor targets
        """
        from sartor.targets import available

        emit({"verb": "targets", "targets": available()}, json)
