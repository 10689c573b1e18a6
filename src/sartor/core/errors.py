"""Errors a user can cause. Each is one line: what was given, what is allowed, what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_MANY = 30  # names are not said in full


class UserError(Exception):
    """Malformed or impossible input; the command line prints it in one line and exits with `exit_code`."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class Unreachable(UserError):
    """A budget that no network of the space meets; the message carries the reachable range."""

    exit_code = 3


def unknown(kind: str, given: object, allowed: Iterable[str]) -> UserError:
    """An error for a name that is not in a closed set: the set, of a large one the nearest ten, and the nearest one."""
    names = sorted(map(str, allowed))
    close = difflib.get_close_matches(str(given), names, n=10, cutoff=0.6 if len(names) <= _MANY else 0.0)
    said = names if len(names) <= _MANY else [*close, f"{len(names) - len(close)} more"]
    hint = f"did you mean {close[0]!r}?" if close else "choose one of them."
    return UserError(f"unknown {kind} {given!r}; there is {', '.join(said)}; {hint}")
