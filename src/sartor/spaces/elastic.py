"""The supernet of MobileNetV3: a layer of every unit once, with all its kernels and expansions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from sartor.core.task import Path
from sartor.layers.elastic import ElasticMBConv
from sartor.spaces.mobilenetv3 import DEPTHS, EXPANSIONS, KERNELS, MobileNetV3, activation, blocks


class UnitSupernet(nn.Module):
    """Blocks of a unit are its first layers; what is run is as deep, as wide and as large as the path says."""

    nested = True

    def __init__(self, space: MobileNetV3) -> None:
        super().__init__()
        self.space = space
        parts = space.parts((0,) * len(space.slots))
        self.stem, self.head = parts[0].make(), parts[-1].make()
        self.units = nn.ModuleList(
            nn.ModuleList(self._layer(u, i) for i in range(max(DEPTHS))) for u in range(len(space.slots))
        )

    def _layer(self, unit: int, layer: int) -> ElasticMBConv:
        inputs, outputs, stride, se, hard_swish = self.space.row(unit, layer)
        return ElasticMBConv(inputs, outputs, stride, se, activation(hard_swish), KERNELS, EXPANSIONS)

    def forward(self, *x: Tensor, path: Path) -> Tensor:
        (y,) = x
        y = self.stem(y)
        for slot, unit in enumerate(self.units):
            y = path.run(slot, y, _Blocks(unit))
        out: Tensor = self.head(y)
        return out

    def extract(self, arch: Sequence[int]) -> nn.Module:
        arch = self.space.canonical(arch)
        network: Any = self.space.network(arch)
        modules = list(network.children())
        layers = [layer.plain(*size) for unit, k in zip(self.units, arch) for layer, size in zip(unit, blocks()[k])]  # type: ignore[call-overload]
        for new, old in zip(modules, [self.stem, *layers, self.head], strict=True):
            new.load_state_dict(old.state_dict())
        out: nn.Module = network.to(next(self.parameters()).device)
        return out


class _Blocks(Sequence[Callable[[Tensor], Tensor]]):
    """The candidates of a unit, each made when it is asked for."""

    def __init__(self, unit: Any) -> None:
        self.unit = unit

    def __len__(self) -> int:
        return len(blocks())

    def __getitem__(self, k: Any) -> Any:
        sizes = blocks()[k]

        def run(x: Tensor) -> Tensor:
            for layer, size in zip(self.unit, sizes):
                x = layer.run(x, *size)
            return x

        return run
