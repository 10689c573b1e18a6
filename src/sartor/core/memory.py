"""A setting of the process that training on a CPU needs."""

from __future__ import annotations

import ctypes
import sys
from functools import cache


@cache
def keep_freed_memory() -> None:
    """Ask glibc to keep freed blocks: or every activation of a training step is mapped anew, 1.5 times slower."""
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            for option, value in ((-1, 2**31 - 1), (-4, 0), (-2, 1 << 28)):  # trim threshold, mmap max, top pad
                mallopt(option, value)
