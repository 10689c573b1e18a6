"""Networks of one operator, for what a device can do at most: convolutions for arithmetic, activations for memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sartor.core import Json, SearchSpace, Slot

if TYPE_CHECKING:
    from torch import Tensor, nn

CONVOLUTIONS = ((64, 3, 56), (128, 3, 28), (256, 3, 28), (512, 1, 28), (1024, 1, 14))
"""Channels, kernel, height and width: dense, with far more arithmetic than memory traffic."""
ACTIVATIONS = (18, 20, 22, 24)
"""Logarithms of the number of elements: 1 MiB, which a cache holds, to 64 MiB, which it does not."""
_BYTES = 4


class Probes(SearchSpace):
    """One slot whose candidates are convolutions, then activations."""

    def __init__(self) -> None:
        names = [f"conv{k}x{k}-{c}@{size}" for c, k, size in CONVOLUTIONS]
        self.slots = (Slot("probe", (*names, *(f"relu-2^{n}" for n in ACTIVATIONS))),)

    def spec(self) -> dict[str, Json]:
        return {"space": "probes", "convolutions": list(map(list, CONVOLUTIONS)), "activations": list(ACTIVATIONS)}

    def inputs(self, batch: int, arch: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        import torch

        (k,) = self.canonical((0,) if arch is None else arch)
        if k < len(CONVOLUTIONS):
            channels, _, size = CONVOLUTIONS[k]
            return (torch.randn(batch, channels, size, size),)
        return (torch.randn(1, 2 ** ACTIVATIONS[k - len(CONVOLUTIONS)]),)

    def network(self, arch: Sequence[int]) -> nn.Module:
        from torch import nn

        (k,) = self.canonical(arch)
        if k >= len(CONVOLUTIONS):
            return nn.ReLU()
        channels, kernel, _ = CONVOLUTIONS[k]
        return nn.Conv2d(channels, channels, kernel, padding=kernel // 2)

    def work(self, arch: Sequence[int], batch: int) -> tuple[float, float]:
        """Multiply-accumulates and bytes moved, one of them 0: what the probe is meant to be bound by."""
        (k,) = self.canonical(arch)
        if k >= len(CONVOLUTIONS):
            return 0.0, 2.0 * _BYTES * 2 ** ACTIVATIONS[k - len(CONVOLUTIONS)]  # read and written
        channels, kernel, size = CONVOLUTIONS[k]
        return float(batch * (channels * kernel * size) ** 2), 0.0
