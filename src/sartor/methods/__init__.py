"""Published systems by name. The keys are the file names with dashes; looking at settings imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sartor.core.registry import Registry
from sartor.methods.settings import LightNASSettings, MathNASSettings, Settings, SurgeNASSettings

if TYPE_CHECKING:
    from sartor.core.method import Method

METHODS: Registry[Method] = Registry(
    "method",
    {
        "lightnas": "sartor.methods.lightnas:LightNAS",
        "mathnas": "sartor.methods.mathnas:MathNAS",
        "surgenas": "sartor.methods.surgenas:SurgeNAS",
    },
)
SETTINGS: dict[str, type[Settings]] = {
    "lightnas": LightNASSettings,
    "mathnas": MathNASSettings,
    "surgenas": SurgeNASSettings,
}
