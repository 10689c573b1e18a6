"""Devices and runtimes that give numbers: `get("onnxruntime:cpu?threads=1&batch=1")`. Importing it loads none."""

from __future__ import annotations

from typing import Any

from sartor.core.errors import UserError
from sartor.core.method import Target
from sartor.core.registry import Registry, parse_reference

TARGETS: Registry[Target] = Registry(
    "target",
    {"onnxruntime": "sartor.targets.ort:onnxruntime", "torch": "sartor.targets.eager:torch_eager"},
)
DEVICES = {"onnxruntime": ("cpu",), "torch": ("cpu", "cuda")}


def get(reference: str) -> Target:
    """The target of `RUNTIME:DEVICE[?threads=1&batch=1&precision=fp32]`, for example `onnxruntime:cpu?threads=2`.

    Raises UserError for an unknown runtime, device or option, values out of range, a missing runtime or device.
    """
    name, device, options = parse_reference(reference)
    TARGETS[name]  # an unknown runtime is said first
    if device is None or "device" in options:
        choices = " or ".join(f"{name}:{d}" for d in DEVICES.get(name, ("DEVICE",)))
        raise UserError(f"target {reference!r} does not say the device after the runtime; write {choices}.")
    return TARGETS.make(name, device=device, **options)


def available() -> list[dict[str, Any]]:
    """Every target of this machine with default options: `target`, and `id` and `metrics`, or `error` why not."""
    found: list[dict[str, Any]] = []
    for reference in (f"{name}:{device}" for name, devices in DEVICES.items() for device in devices):
        try:
            target = get(reference)
            found.append({"target": reference, "id": target.id, "metrics": sorted(target.metrics)})
        except UserError as error:
            found.append({"target": reference, "error": str(error)})
    return found
