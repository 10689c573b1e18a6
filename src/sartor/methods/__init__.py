"""Published systems by name. The keys are the file names with dashes; looking at settings imports no torch."""

from __future__ import annotations

from sartor.core import Method, Registry
from sartor.methods.settings import LightNASSettings, Settings

METHODS: Registry[Method] = Registry("method", {"lightnas": "sartor.methods.lightnas:LightNAS"})
SETTINGS: dict[str, type[Settings]] = {"lightnas": LightNASSettings}
