"""A function in a file as the one who grades networks."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sartor.core import Architecture, FunctionScore, Json, SearchSpace, UserError, metric, parse_reference
from sartor.core.userfile import function_in


def oracle(reference: str, space: SearchSpace) -> tuple[FunctionScore, Json]:
    """The score of `FILE.py:FUNCTION[?metric=accuracy]`, and what identifies it.

    That does not change when the file does: a mistake can be mended without losing the answers that are paid for.

    The function is called with the space and an architecture, a tuple of candidate indices, and returns a number in the
    metric's unit, NaN for a failure. Raises UserError where there is no such function.
    """
    file, name, options = parse_reference(reference)
    if name is None or options.keys() - {"metric"}:
        raise UserError(f"oracle {reference!r} is not FILE.py:FUNCTION[?metric=accuracy]; write it like that.")
    path, of = Path(file).expanduser(), metric(str(options.get("metric", "accuracy")))
    function = function_in(file, name, "takes a space and an architecture")
    return FunctionScore(space, of, _Told(function, path, name)), {"function": f"{path.name}:{name}", "metric": of.name}


@dataclass(frozen=True)
class _Told:
    """The function, whose mistakes are told in a line."""

    function: Callable[[SearchSpace, Architecture], Any]
    path: Path
    name: str

    def __call__(self, space: SearchSpace, arch: Architecture) -> float:
        try:
            value = self.function(space, arch)
        except Exception as error:
            frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == self.path]
            line = f", line {frames[-1].lineno}" if frames else ""
            what = str(error).partition("\n")[0]
            raise UserError(
                f"{self.path.name}:{self.name}{line} raised {type(error).__name__} ({what}) for {list(arch)}; mend it, "
                "and the same command resumes with the answers so far."
            ) from error
        if isinstance(value, bool) or not isinstance(value, int | float | np.number):
            raise UserError(
                f"{self.path.name}:{self.name} gave {value!r} for {list(arch)}; return a number, NaN for a failure."
            )
        return float(value)
