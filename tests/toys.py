"""Small spaces for tests: chains of convolution blocks that build, export and run in milliseconds."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sartor.core import Json, Part, SearchSpace, Slot

CANDIDATES = ("conv3", "depthwise3", "depthwise5", "pointwise")


def conv(c_in: int, c_out: int, kernel: int = 1, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU: `0`, `1`, `2`."""
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(c_out),
        nn.ReLU(),
    )


def block(choice: str, c_in: int, c_out: int, stride: int) -> nn.Module:
    """One candidate of a slot: (n, c_in, s, s) to (n, c_out, s / stride, s / stride)."""
    if choice == "conv3":
        return conv(c_in, c_out, 3, stride=stride)
    if choice == "pointwise":
        return conv(c_in, c_out, 1, stride=stride)
    kernel = int(choice.removeprefix("depthwise"))
    return nn.Sequential(conv(c_in, c_in, kernel, stride=stride, groups=c_in), conv(c_in, c_out))


def fold(module: nn.Module) -> None:
    """Fold every conv - batch norm pair below `module`, in place; it must be in eval mode."""
    for child in module.children():
        if isinstance(child, nn.Sequential) and len(child) > 1 and isinstance(child[1], nn.BatchNorm2d):
            convolution = child[0]
            assert isinstance(convolution, nn.Conv2d)
            child[0], child[1] = fuse_conv_bn_eval(convolution, child[1]), nn.Identity()
        else:
            fold(child)


class ToySpace(SearchSpace):
    """A stem, one block a slot (every second one strided), a head; (n, 3, size, size) to (n, classes).

    slots: how many; channels: width; size: resolution; chain: False hides the parts, so networks come whole.
    """

    local_parts = True

    def __init__(
        self, slots: int = 4, channels: int = 8, size: int = 16, classes: int = 10, *, chain: bool = True
    ) -> None:
        self.channels, self.size, self.classes, self.chain = channels, size, classes, chain
        self.slots = tuple(Slot(f"block{i}", CANDIDATES) for i in range(slots))

    def spec(self) -> dict[str, Json]:
        return {
            "space": "toy",
            "slots": len(self.slots),
            "channels": self.channels,
            "size": self.size,
            "classes": self.classes,
            "chain": self.chain,
        }

    def inputs(self, batch: int, arch: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        return (torch.randn(batch, 3, self.size, self.size),)

    def make(self, slot: int, candidate: int) -> nn.Module:
        """The block of one slot; tests override it to have a candidate that breaks."""
        return block(CANDIDATES[candidate], self.channels, self.channels, 2 if slot % 2 else 1)

    def pieces(self, arch: Sequence[int]) -> list[Part]:
        c, size = self.channels, self.size
        pieces = [Part(f"toy stem {c}", None, lambda: conv(3, c, 3), ((3, size, size),))]
        for i, k in enumerate(self.canonical(arch)):
            key = f"toy {CANDIDATES[k]} {c} {2 if i % 2 else 1}"
            pieces.append(Part(key, i, self._maker(i, k), ((c, size, size),)))
            size = -(-size // 2) if i % 2 else size
        head = Part(f"toy head {c} {self.classes}", None, self._head, ((c, size, size),))
        return [*pieces, head]

    def _maker(self, slot: int, candidate: int) -> Callable[[], nn.Module]:
        return lambda: self.make(slot, candidate)

    def _head(self) -> nn.Module:
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(self.channels, self.classes))

    def parts(self, arch: Sequence[int]) -> list[Part] | None:
        return self.pieces(arch) if self.chain else None

    def assemble(self, modules: Sequence[nn.Module]) -> nn.Module:
        return nn.Sequential(*modules)

    def network(self, arch: Sequence[int]) -> nn.Module:
        return self.assemble([piece.make() for piece in self.pieces(arch)])

    def deploy(self, network: nn.Module) -> nn.Module:
        deployed = nn.Sequential(copy.deepcopy(network).eval())
        fold(deployed)
        whole = deployed[0]
        assert isinstance(whole, nn.Module)
        return whole
