"""Published systems by name. The keys are the file names with dashes; looking at settings imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sartor.core.registry import Registry
from sartor.methods.settings.base import Settings
from sartor.methods.settings.domino import DominoSettings
from sartor.methods.settings.lightnas import LightNASSettings
from sartor.methods.settings.lightnas_channels import LightNASChannelsSettings
from sartor.methods.settings.mathnas import MathNASSettings
from sartor.methods.settings.network_space_search import NetworkSpaceSearchSettings
from sartor.methods.settings.spos import SPOSSettings
from sartor.methods.settings.supernet_shifting import SupernetShiftingSettings
from sartor.methods.settings.surgenas import SurgeNASSettings

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
