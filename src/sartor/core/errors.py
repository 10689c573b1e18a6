"""Errors a user can cause. Each is one line: what was given, what is allowed, what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Malformed or impossible input; the command line prints it in one line and exits with `exit_code`."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class Unreachable(UserError):
    """A budget that no network of the space meets; the message carries the reachable range."""

    exit_code = 3


def unknown(kind: str, given: object, allowed: Iterable[str]) -> UserError:
    """An error for a name that is not in a closed set, with the nearest allowed name first."""
    names = sorted(map(str, allowed))
    close = difflib.get_close_matches(str(given), names, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "choose one of them."
    return UserError(f"unknown {kind} {given!r}; there is {', '.join(names)}; {hint}")
