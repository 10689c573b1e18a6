"""Functions in files of the user's."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sartor.core.errors import UserError


def function_in(file: str, name: str, does: str) -> Callable[..., Any]:
    """The function of that name in a Python file, which is imported with its own directory on the path.

    does: what it should do, for the message. Raises UserError where there is no such file or function.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        where = "" if path.is_absolute() else f" in {Path.cwd()}"
        raise UserError(f"there is no file {file}{where}; check the path.")
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
        raise UserError(f"{file} has no function {name!r}; give one that {does}.")
    found: Callable[..., Any] = function
    return found
