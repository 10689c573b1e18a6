"""The machine: what identifies it (part of a target's id) and what changes by the minute (stored, warned about)."""

from __future__ import annotations

import logging
import os
import platform
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

SYS = Path("/sys")
logger = logging.getLogger("sartor")


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Name of the processor, or of the board where the processor has none (`Raspberry Pi 5 ...`, ARM)."""
    text = read(cpuinfo) or ""
    fields = [line.partition(":") for line in text.splitlines() if ":" in line]
    for wanted in ("model name", "Model", "Hardware", "cpu model"):
        for name, _, value in fields:
            if name.strip() == wanted and value.strip():
                return " ".join(value.split())
    return platform.processor() or platform.machine()


def cores() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def conditions(sys_root: Path = SYS) -> dict[str, Any]:
    """The moment: host, UTC time, cores, load, and governor, frequency and temperature where they can be read."""
    cpu = sys_root / "devices/system/cpu/cpu0/cpufreq"
    now: dict[str, Any] = {
        "host": socket.gethostname(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": cores(),
        "load_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "governor": read(cpu / "scaling_governor"),
        "frequency_mhz": _scaled(read(cpu / "scaling_cur_freq")),
        "temperature_c": _temperature(sys_root),
    }
    return {name: value for name, value in now.items() if value is not None}


def warn(now: dict[str, Any], threads: int) -> None:
    """Say what makes numbers taken under these conditions doubtful."""
    if now.get("governor") not in (None, "performance"):
        logger.warning("cpu governor is %s, not performance: latency depends on the load before", now["governor"])
    if now.get("load_1min", 0) > max(now["cores"] - threads, 0) + 0.5:
        logger.warning(
            "load average is %.1f on %d cores: other work competes with the measurement", now["load_1min"], now["cores"]
        )


def read(path: Path) -> str | None:
    """Stripped text of a small system file, None where it is missing or unreadable."""
    try:
        return path.read_text().strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _scaled(text: str | None) -> float | None:
    """Thousandths, as the kernel writes kHz and millidegrees."""
    try:
        return None if text is None else round(int(text) / 1000, 1)
    except ValueError:
        return None


def _temperature(sys_root: Path) -> float | None:
    """The hottest thermal zone."""
    zones = [_scaled(read(zone / "temp")) for zone in sorted(sys_root.glob("class/thermal/thermal_zone*"))]
    return max((t for t in zones if t is not None), default=None)
