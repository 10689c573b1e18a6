"""Detectors whose backbones are the networks of another space (thesis, Table 4.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sartor.core import Json, SearchSpace
from sartor.spaces.derived import Derived

if TYPE_CHECKING:
    from torch import nn


class Detectors(Derived):
    """SSDLite on the networks of a space of image classifiers. classes: of things, without background."""

    def __init__(self, of: SearchSpace, classes: int) -> None:
        super().__init__(of)
        self.classes = classes

    def spec(self) -> dict[str, Json]:
        return {"space": "detectors", "of": self.of.spec(), "classes": self.classes}

    def key(self, arch: Sequence[int]) -> str:
        return f"{self.of.key(arch)} ssdlite {self.classes}"

    def network(self, arch: Sequence[int]) -> nn.Module:
        import torch

        from sartor.layers.detector import Detector

        (x,) = self.of.inputs(1, arch)
        network = self.of.network(arch)
        return Detector(network, x.to(next(network.parameters(), torch.empty(0)).device), self.classes)

    def deploy(self, network: nn.Module) -> nn.Module:
        return self.of.deploy(network)
