"""Energy counters: NVML, Linux powercap (RAPL), INA3221 power monitors of Jetson boards."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sartor.targets.conditions import SYS, read

WINDOW_S = 1.0
"""Shortest loop that energy is taken over: counters are updated every 1 to 100 ms."""
LOOKED_FOR = (
    "no counter found (looked for class/powercap/*/energy_uj and hwmon ina3221 under /sys, and for NVML's total energy "
    "with the target torch:cuda); measure where one is readable (powercap usually needs root), or leave out energy_mj."
)


class Counter(Protocol):
    """Energy since some moment."""

    @property
    def name(self) -> str: ...
    def window(self, finished: Callable[[], object]) -> float:
        """Millijoules spent while `finished` ran."""
        ...


def per_run_mj(counter: Counter, run: Callable[[], object], window_s: float) -> float:
    """Mean energy of one run in mJ, idle power included, over a loop of at least `window_s` seconds."""
    count = 0

    def loop() -> None:
        nonlocal count
        end = time.monotonic() + window_s
        while count == 0 or time.monotonic() < end:
            run()
            count += 1

    return counter.window(loop) / count


def cpu_counters(sys_root: Path = SYS) -> list[Counter]:
    """Counters that cover the processor, best first: the energy counted by it, then power sampled on the board."""
    zones = [zone for zone in sorted(sys_root.glob("class/powercap/*")) if _package(zone)]
    rails = [rail for chip in sorted(sys_root.glob("class/hwmon/hwmon*")) for rail in _rails(chip)]
    found: list[Counter] = []
    if zones:
        found.append(Powercap(tuple(zones)))
    if rails:
        found.append(Ina3221(tuple(rails)))
    return found


def gpu_counters() -> list[Counter]:
    """NVML's total energy of device 0, if pynvml and such a counter are there."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except Exception:  # not installed, no driver, or a GPU older than Volta: each has its own exception type
        return []
    return [Nvml(lambda: int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)))]


@dataclass(frozen=True)
class Nvml:
    """A GPU's own counter of millijoules. total: reads it."""

    total: Callable[[], int]
    name: str = "nvml total energy"

    def window(self, finished: Callable[[], object]) -> float:
        before = self.total()
        finished()
        return float(self.total() - before)


@dataclass(frozen=True)
class Powercap:
    """Processor packages' counters of microjoules, which wrap around at `max_energy_range_uj`."""

    zones: tuple[Path, ...]
    name: str = "powercap"

    def window(self, finished: Callable[[], object]) -> float:
        before = [int((zone / "energy_uj").read_text()) for zone in self.zones]
        finished()
        spent = 0
        for zone, start in zip(self.zones, before):
            gone = int((zone / "energy_uj").read_text()) - start
            spent += gone if gone >= 0 else gone + int((zone / "max_energy_range_uj").read_text())
        return spent / 1e3


def _package(zone: Path) -> bool:
    """A readable top-level package zone. Its sub-zones (core, dram: `intel-rapl:0:1`) are inside or beside the
    package; `psys` holds the package again; `intel-rapl-mmio:0` is the package's counter by another door."""
    name = read(zone / "name") or ""
    top = zone.name.count(":") == 1 and "mmio" not in zone.name
    return top and name.startswith("package") and read(zone / "energy_uj") is not None


# ---------------------------------------------------------------------- power monitors

Rail = tuple[Path, Path]
"""Files of one supply rail: millivolts, milliamperes."""
_TOTAL = ("VDD_IN", "POM_5V_IN", "VIN_SYS_5V0")
"""Names that Jetson boards give the rail which feeds all others."""


def _rails(chip: Path) -> list[Rail]:
    """The rails to be summed: the one that feeds the board if it is labelled so, else all labelled ones."""
    if read(chip / "name") != "ina3221":
        return []
    found: dict[str, Rail] = {}
    for k in (1, 2, 3):
        label = read(chip / f"in{k}_label") or ""
        files = chip / f"in{k}_input", chip / f"curr{k}_input"
        if label and label != "NC" and all(read(file) is not None for file in files):
            found[label] = files
    for label in _TOTAL:
        if label in found:
            return [found[label]]
    return list(found.values())


@dataclass(frozen=True)
class Ina3221:
    """Power of supply rails, sampled in a thread and integrated by the trapezoidal rule. every_s: sampling period."""

    rails: tuple[Rail, ...]
    every_s: float = 0.01
    name: str = "ina3221"

    def window(self, finished: Callable[[], object]) -> float:
        with self._sampled() as samples:
            finished()
        return sum((t1 - t0) * (p0 + p1) / 2 for (t0, p0), (t1, p1) in itertools.pairwise(samples))

    @contextmanager
    def _sampled(self) -> Iterator[list[tuple[float, float]]]:
        """(seconds, milliwatts) from beginning to end of the block; complete when it is left."""
        samples = [self._now()]
        done = threading.Event()

        def sample() -> None:
            while not done.wait(self.every_s):
                samples.append(self._now())

        thread = threading.Thread(target=sample, daemon=True)
        thread.start()
        try:
            yield samples
        finally:
            done.set()
            thread.join()
            samples.append(self._now())

    def _now(self) -> tuple[float, float]:
        power = sum(int(volt.read_text()) * int(ampere.read_text()) / 1e3 for volt, ampere in self.rails)
        return time.monotonic(), power
