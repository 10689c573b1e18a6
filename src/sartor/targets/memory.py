"""Peak memory of one network on a CPU runtime, in a process of its own: `python -m sartor.targets.memory FILE`."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sartor.targets.pack import Packed

if TYPE_CHECKING:
    from sartor.targets.local import LocalTarget

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RUNS, TIMEOUT_S = 3, 600.0


def available() -> bool:
    """Linux keeps a high-water mark of resident memory and lets a process reset it."""
    return STATUS.exists() and RESET.exists()


def peak_mb(target: LocalTarget, packed: Packed) -> float:
    """Resident memory in MB (1e6 bytes) that loading and running the network adds to a process which has loaded and
    run a trivial one: weights, activations and scratch memory, not the runtime itself.

    A fresh process, because freed memory stays resident and would hide in the next network's number. Raises
    RuntimeError with the child's last words.
    """
    with tempfile.TemporaryDirectory(prefix="sartor-") as folder:
        file = Path(folder) / "network"
        file.write_bytes(pickle.dumps((target, packed)))  # read back at once by our own child, never kept
        paths = os.pathsep.join(path for path in sys.path if path)
        child = subprocess.run(
            [sys.executable, "-m", "sartor.targets.memory", str(file)],
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    if child.returncode:
        said = child.stderr.strip().splitlines()
        raise RuntimeError(f"exit code {child.returncode}: {said[-1] if said else 'no message'}")
    return float(child.stdout.split()[-1])


def growth(prepare: Callable[[], object], work: Callable[[], object]) -> float:
    """Peak of resident memory during `work` over what is resident after `prepare`, in MB."""
    prepare()
    RESET.write_text("5")  # sets the high-water mark to what is resident now
    before = _kilobytes("VmRSS")
    work()
    return max(_kilobytes("VmHWM") - before, 0) * 1024 / 1e6


def _kilobytes(field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", STATUS.read_text())
    if found is None:
        raise RuntimeError(f"the kernel does not report {field}")
    return int(found[1])


def main(file: str) -> None:
    """What the child does: print the megabytes."""
    target: LocalTarget
    target, packed = pickle.loads(Path(file).read_bytes())

    def work() -> None:
        run = target.load(packed)
        for _ in range(RUNS):
            run()

    with target.settings():
        print(growth(target.start, work))


if __name__ == "__main__":
    main(sys.argv[1])
