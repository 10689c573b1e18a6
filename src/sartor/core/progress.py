"""Progress and time left for anything over two seconds, on stderr."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
_AFTER, _TERMINAL_EVERY, _LOG_EVERY = 2.0, 0.2, 10.0


def duration(seconds: float) -> str:
    """`41 s`, `3 min 05 s`, `2 h 10 min`."""
    s = round(seconds)
    if s < 60:
        return f"{s} s"
    return f"{s // 60} min {s % 60:02d} s" if s < 3600 else f"{s // 3600} h {s % 3600 // 60:02d} min"


class Progress:
    """Counts work done and says so: a live line on a terminal, a line every ten seconds in a log.

    Silent for the first two seconds, and altogether when SARTOR_PROGRESS=0.
    """

    def __init__(self, what: str, total: int, done: int = 0) -> None:
        self.what, self.total, self.done, self.status = what, total, done, ""
        self._began = self._said = time.monotonic()
        self._before = done
        self._live = sys.stderr.isatty()
        self._on = os.environ.get("SARTOR_PROGRESS") != "0"
        self._spoke = False

    def advance(self, n: int = 1, status: str = "") -> None:
        """Count `n` more as done; `status` is shown at the end of the line."""
        self.done += n
        self.status = status or self.status
        now = time.monotonic()
        every = _TERMINAL_EVERY if self._live else _LOG_EVERY
        if self._on and now - self._began >= _AFTER and now - self._said >= (every if self._spoke else 0):
            self._said, self._spoke = now, True
            new = self.done - self._before
            left = duration((now - self._began) / max(new, 1) * (self.total - self.done))
            known = new >= 0.05 * (self.total - self._before)  # the first item often pays for getting ready
            self._write(f"{self.what}: {self.done} of {self.total}" + (f", {left} left" if known else ""))

    def close(self) -> None:
        """End the live line with the time it took."""
        if self._spoke:
            how = "in" if self.done == self.total else "when stopped, after"
            self._write(f"{self.what}: {self.done} of {self.total} {how} {duration(time.monotonic() - self._began)}")
            if self._live:
                sys.stderr.write("\n")

    def _write(self, line: str) -> None:
        line += f"  {self.status}" if self.status else ""
        sys.stderr.write(f"\r\x1b[K{line}" if self._live else f"{line}\n")
        sys.stderr.flush()


def progress(items: Iterable[T], what: str, total: int, done: int = 0) -> Iterator[T]:
    """Iterate with progress; `done` of `total` were finished earlier."""
    bar = Progress(what, total, done)
    try:
        for item in items:
            yield item
            bar.advance()
    finally:
        bar.close()
