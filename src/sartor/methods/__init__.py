"""Published systems by name. The keys are the file names with dashes; looking at settings imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sartor.core.registry import Registry
from sartor.methods.settings import (
    DominoSettings,
    LightNASChannelsSettings,
    LightNASSettings,
    MathNASSettings,
    NetworkSpaceSearchSettings,
    Settings,
    SPOSSettings,
    SupernetShiftingSettings,
    SurgeNASSettings,
)

if TYPE_CHECKING:
    from sartor.core.method import Method

METHODS: Registry[Method] = Registry(
    "method",
    {
        "domino": "sartor.methods.domino:Domino",
        "lightnas": "sartor.methods.lightnas:LightNAS",
        "lightnas-channels": "sartor.methods.lightnas_channels:LightNASChannels",
        "mathnas": "sartor.methods.mathnas:MathNAS",
        "network-space-search": "sartor.methods.network_space_search:NetworkSpaceSearch",
        "spos": "sartor.methods.spos:SPOS",
        "supernet-shifting": "sartor.methods.supernet_shifting:SupernetShifting",
        "surgenas": "sartor.methods.surgenas:SurgeNAS",
    },
)
SETTINGS: dict[str, type[Settings]] = {
    "domino": DominoSettings,
    "lightnas": LightNASSettings,
    "lightnas-channels": LightNASChannelsSettings,
    "mathnas": MathNASSettings,
    "network-space-search": NetworkSpaceSearchSettings,
    "spos": SPOSSettings,
    "supernet-shifting": SupernetShiftingSettings,
    "surgenas": SurgeNASSettings,
}
