"""Supernets that runs have kept: where they are, and of which space. Nothing heavy is imported."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sartor.core.errors import UserError
from sartor.runs import read_json

if TYPE_CHECKING:
    from sartor.core.space import SearchSpace

FILE = "supernet.safetensors"
_FREE = ("resolution", "classes", "dropout")  # which no tensor but the classifier's depends on


def of_run(directory: str | Path) -> Path:
    """Where a run's supernet is. Raises UserError where there is none."""
    place = Path(directory).expanduser()
    file = place / "search" / FILE
    if file.exists():
        return file
    wanted = "give the directory of a run of spos or supernet-shifting"
    if not (place / "run.json").exists():
        raise UserError(f"{directory} is no run (no run.json there); {wanted}.")
    job = _job(place)
    kind = " ".join(filter(None, (job.get("verb"), job.get("method"))))
    raise UserError(f"{directory}, a run of {kind or 'another kind'}, has no supernet, or not yet ({file}); {wanted}.")


def same_space(directory: str | Path, space: SearchSpace) -> None:
    """Raise UserError where a run's supernet is of a space whose weights have other shapes."""
    there, here = _job(Path(directory).expanduser()).get("space"), space.spec()
    while isinstance(there, dict) and isinstance(there.get("base"), dict):
        there = there["base"]  # of a part of a space the whole supernet is kept
    while isinstance(here.get("base"), dict):
        here = here["base"]
    if not isinstance(there, dict):
        return  # a run of other code; loading it says more
    apart = [key for key in dict.fromkeys((*there, *here)) if there.get(key) != here.get(key) and key not in _FREE]
    if apart:
        said = ", ".join(f"{key} {there.get(key, 'not given')} (here: {here.get(key, 'not given')})" for key in apart)
        raise UserError(
            f"the supernet of {directory} is of another space: {said}; give the same space, of which only "
            "resolution and classes may differ."
        )


def _job(place: Path) -> dict[str, Any]:
    job = read_json(place / "run.json").get("job", {}) if (place / "run.json").exists() else {}
    return job if isinstance(job, dict) else {}
