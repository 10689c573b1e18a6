"""The supernet of the Expanded Space: one super-kernel a convolution, masked to be of any width (FBNetV2).

A. Wan et al., "FBNetV2: Differentiable Neural Architecture Search for Spatial and Channel Dimensions", CVPR 2020; M.-F.
Hong et al., "Network Space Search", 2021, section 6.3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sartor.core.task import Path
from sartor.layers.elastic import SlicedNorm
from sartor.layers.residual import ElasticResidual

if TYPE_CHECKING:
    from sartor.spaces.expanded import Expanded


class MaskedSupernet(nn.Module):
    """As deep and wide as the largest network.

    Without gates a path is the network itself: its first blocks and first channels, and nothing else runs. With gates
    all candidates run at once, at the cost of the largest one kept. A width's gates, added up from the widest on, are
    the factors of the channels, and the output of a stage is that of its blocks weighed by the depth's gates. One-hot
    gates give what the network gives, and gradients to all kept candidates.
    """

    mixes = True
    nested = True

    def __init__(self, space: Expanded) -> None:
        super().__init__()
        self.space = space
        self.stem = nn.Conv2d(space.channels, space.stem, 3, 1, 1, bias=False)
        self.stem_norm = SlicedNorm(space.stem)
        stages, inputs = [], space.stem
        for stride in space.strides:
            row = (space.block, inputs, space.width, stride, True)
            again = (space.block, space.width, space.width, 1, False)
            stages.append(nn.ModuleList(ElasticResidual(*(again if i else row)) for i in range(space.depth)))
            inputs = space.width
        self.stages = nn.ModuleList(stages)
        self.classify = nn.Linear(inputs, space.classes)

    def forward(self, *x: Tensor, path: Path) -> Tensor:
        (y,) = x
        y = functional.relu(self.stem_norm(self.stem(y)))
        mask: Tensor | None = None
        for i, stage in enumerate(self.stages):
            y, mask = self._stage(i, stage, y, mask, path)
        y = functional.adaptive_avg_pool2d(y, 1).flatten(1)
        return functional.linear(y, self.classify.weight[:, : y.shape[1]], self.classify.bias)

    def _stage(self, i: int, stage: Any, y: Tensor, mask_in: Tensor | None, path: Path) -> tuple[Tensor, Tensor | None]:
        depth, width = 2 * i, 2 * i + 1
        if path.gates is None:
            for block in stage[: path.index[depth] + 1]:
                y = block.run(y, path.index[width] + 1)
            return y, None
        depths, widths = (
            range(len(path.gates[slot])) if path.kept is None else path.kept[slot] for slot in (depth, width)
        )
        widest = max(widths) + 1
        mask = path.gates[width][:widest].flip(0).cumsum(0).flip(0)  # a channel is in all networks that are wider
        outputs = []
        for k, block in enumerate(stage[: max(depths) + 1]):
            y = block.run(y, widest, mask_in, mask)
            mask_in = mask
            if k in depths:
                outputs.append(path.gates[depth][k] * y)
        return torch.stack(outputs).sum(0) if len(outputs) > 1 else outputs[0], mask

    @torch.no_grad()
    def extract(self, arch: Sequence[int]) -> nn.Module:
        network: Any = self.space.network(arch).to(self.stem.weight.device)
        stem, *blocks, head = network.children()
        stem[0].weight.copy_(self.stem.weight)
        self.stem_norm.fill(stem[1])
        inputs, copies = self.space.stem, []
        for (depth, width), stage in zip(self.space.sizes(arch), self.stages):
            for block in stage[:depth]:  # type: ignore[index]
                copies.append(block.plain(inputs, width))
                inputs = width
        for new, old in zip(blocks, copies, strict=True):
            new.load_state_dict(old.state_dict())
        head[2].weight.copy_(self.classify.weight[:, :inputs])
        head[2].bias.copy_(self.classify.bias)
        return network  # type: ignore[no-any-return]
