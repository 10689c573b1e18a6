"""`sartor spaces`: which spaces there are, and what one of them holds."""

from __future__ import annotations

from typing import Annotated

import typer

from sartor.cli.common import JsonFlag, emit


def add(app: typer.Typer) -> None:
    @app.command()
    def spaces(
        reference: Annotated[
            str | None, typer.Argument(help="NAME[:PRESET][?option=value&...] or a JSON file.")
        ] = None,
        json: JsonFlag = False,
    ) -> None:
        """List the search spaces, or describe one.

        Example: sartor spaces "mobilenet:lightnas?resolution=160"
        """
        from sartor.spaces import SPACES, get

        if reference is None:
            presets = {name: list(getattr(SPACES[name], "presets", ())) for name in SPACES}
            emit({"verb": "spaces", "spaces": presets}, json)
            return
        space = get(reference)
        result = {
            "verb": "spaces",
            "space": space.spec(),
            "id": space.id,
            "size": space.size,
            "slots": {slot.name: list(slot.candidates) for slot in space.slots},
        }
        if space.local_parts:
            from sartor.choose.solve import reachable
            from sartor.spaces.complexity import Complexity

            for name in ("macs", "params"):
                result[f"{name}_range"] = list(reachable(space, Complexity(space, name)))
        emit(result, json)
