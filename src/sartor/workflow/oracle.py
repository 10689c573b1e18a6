"""A function in a file as the one who grades networks."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from sartor.core import FunctionScore, Json, SearchSpace, UserError, metric, parse_reference


def oracle(reference: str, space: SearchSpace) -> tuple[FunctionScore, Json]:
    """The score of `FILE.py:FUNCTION[?metric=accuracy]`, and what identifies it: the reference and the file's contents.

    The function is called with the space and an architecture, a tuple of candidate indices, and returns a number in the
    metric's unit, NaN for a failure. Raises UserError where there is no such function.
    """
    file, name, options = parse_reference(reference)
    path = Path(file).expanduser()
    if name is None or options.keys() - {"metric"}:
        raise UserError(f"oracle {reference!r} is not FILE.py:FUNCTION[?metric=accuracy]; write it like that.")
    if not path.is_file():
        raise UserError(f"there is no file {file}; check the path of the oracle.")
    of = metric(str(options.get("metric", "accuracy")))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{file} is not a Python file; give FILE.py:FUNCTION.")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"{file} cannot be imported ({type(error).__name__}: {error}); mend it.") from error
    finally:
        sys.path.remove(str(path.parent))
    function: Any = getattr(module, name, None)
    if not callable(function):
        raise UserError(f"{file} has no function {name!r}; give one that takes a space and an architecture.")
    contents = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return FunctionScore(space, of, function), {"function": f"{path.name}:{name}", "metric": of.name, "file": contents}
