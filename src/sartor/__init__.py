"""sartor: neural networks made to measure for your hardware.

space = sartor.spaces.get("mobilenet", preset="lightnas", resolution=224, classes=1000)
target = sartor.targets.get("onnxruntime:cpu?threads=1&batch=1")
task = sartor.tasks.get("imagefolder:/data/imagenet?classes=100")
latency = sartor.fit("mlp", space, target, samples=2000)
found = sartor.search("lightnas", space, task, budget=latency.at("20ms"))
network = found.network()
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sartor import spaces, targets
    from sartor.training import tasks
    from sartor.workflow import fit, search

__version__ = "0.1.0"
__all__ = ["fit", "search", "spaces", "targets", "tasks"]

_LAZY = {
    "spaces": ("sartor.spaces", None),
    "targets": ("sartor.targets", None),
    "tasks": ("sartor.training.tasks", None),
    "fit": ("sartor.workflow", "fit"),
    "search": ("sartor.workflow", "search"),
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'sartor' has no attribute {name!r}")
    module, attribute = _LAZY[name]
    found = importlib.import_module(module)
    return found if attribute is None else getattr(found, attribute)
