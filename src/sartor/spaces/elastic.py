"""Supernets in which candidates share weights: every layer once, with all its kernels, expansions and widths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sartor.core.task import Path
from sartor.layers.attention import AttentionLayer
from sartor.layers.elastic import ElasticMBConv, SlicedNorm
from sartor.layers.translator import Translator
from sartor.spaces.mobilenetv3 import DEPTHS, EXPANSIONS, KERNELS, MobileNetV3, activation, blocks
from sartor.spaces.options import halve
from sartor.spaces.supertransformer import SuperTransformer
from sartor.spaces.supervit import LAST, POOL, STEM, SuperViT


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
            y = path.run(slot, y, _Candidates(len(blocks()), partial(self._block, unit)))
        out: Tensor = self.head(y)
        return out

    def _block(self, unit: Any, k: int, x: Tensor) -> Tensor:
        for layer, size in zip(unit, blocks()[k]):
            x = layer.run(x, *size)
        return x

    def extract(self, arch: Sequence[int]) -> nn.Module:
        arch = self.space.canonical(arch)
        network: Any = self.space.network(arch)
        modules = list(network.children())
        layers = [layer.plain(*size) for unit, k in zip(self.units, arch) for layer, size in zip(unit, blocks()[k])]  # type: ignore[call-overload]
        for new, old in zip(modules, [self.stem, *layers, self.head], strict=True):
            new.load_state_dict(old.state_dict())
        out: nn.Module = network.to(next(self.parameters()).device)
        return out


class StageSupernet(nn.Module):
    """SuperViT: widths, depths, kernels and expansions of a stage share its layers."""

    nested = True

    def __init__(self, space: SuperViT) -> None:
        super().__init__()
        self.space = space
        most = space.wide(max(STEM))
        self.stem = nn.Conv2d(space.channels, most, 3, space.strides[0], 1, bias=False)
        self.stem_norm, self.act = SlicedNorm(most), nn.Hardswish()
        size, stages = halve(space.resolution, space.strides[0]), []
        for stage, stride in zip(space.stages, space.strides[1:]):
            widths = sorted({space.wide(w) for w in stage.widths})
            shape = (most, widths[-1], stride, stage.se, nn.Hardswish, stage.kernels, stage.expansions)
            layers: list[nn.Module] = [ElasticMBConv(*shape)]
            size = halve(size, stride)
            for _ in range(max(stage.depths) - 1):
                again = (widths[-1], widths[-1], 1, *shape[3:])
                layers.append(AttentionLayer(widths, size) if stage.attention else ElasticMBConv(*again))
            stages.append(nn.ModuleList(layers))
            most = widths[-1]
        self.stages = nn.ModuleList(stages)
        features = space.wide(max(POOL))
        self.grow, self.grow_norm = nn.Conv2d(most, LAST * most, 1, bias=False), SlicedNorm(LAST * most)
        self.mix = nn.Conv2d(LAST * most, features, 1, bias=False)
        self.dropout, self.classify = nn.Dropout(space.dropout), nn.Linear(features, space.classes)

    def forward(self, *x: Tensor, path: Path) -> Tensor:
        (y,) = x
        y = path.run(0, y, _Candidates(len(STEM), self._begin))
        for i, options in enumerate(self.space.options):
            y = path.run(i + 1, y, _Candidates(len(options), partial(self._stage, i)))
        return path.run(len(self.stages) + 1, y, _Candidates(len(POOL), self._end))

    def _begin(self, k: int, x: Tensor) -> Tensor:
        weight = self.stem.weight[: self.space.wide(STEM[k])]
        out: Tensor = self.act(self.stem_norm(functional.conv2d(x, weight, None, self.stem.stride, 1)))
        return out

    def _stage(self, i: int, k: int, x: Tensor) -> Tensor:
        width, depth, kernel, expansion = self.space.options[i][k]
        stage: Any = self.stages[i]
        for layer in stage[:depth]:
            attends = isinstance(layer, AttentionLayer)
            x = layer(x) if attends else layer.run(x, kernel, expansion, self.space.wide(width))
        return x

    def _end(self, k: int, x: Tensor) -> Tensor:
        c, features = x.shape[1], self.space.wide(POOL[k])
        y = self.act(self.grow_norm(functional.conv2d(x, self.grow.weight[: LAST * c, :c])))
        y = functional.conv2d(functional.adaptive_avg_pool2d(y, 1), self.mix.weight[:features, : LAST * c])
        y = self.dropout(self.act(y).flatten(1))
        return functional.linear(y, self.classify.weight[:, :features], self.classify.bias)

    @torch.no_grad()
    def extract(self, arch: Sequence[int]) -> nn.Module:
        stem, *middle, pool = self.space.canonical(arch)
        network: Any = self.space.network(arch).to(self.stem.weight.device)
        first, *layers, last = network.children()
        width = self.space.wide(STEM[stem])
        first[0].weight.copy_(self.stem.weight[:width])
        self.stem_norm.fill(first[1])
        copies: list[nn.Module] = []
        for stage, options, k in zip(self.stages, self.space.options, middle):
            wide, depth, kernel, expansion = options[k]
            wide = self.space.wide(wide)
            for layer in stage[:depth]:  # type: ignore[index]
                attends = isinstance(layer, AttentionLayer)
                copies.append(layer.plain(wide) if attends else layer.plain(kernel, expansion, width, wide))
                width = wide
        for new, old in zip(layers, copies, strict=True):
            new.load_state_dict(old.state_dict())
        features = self.space.wide(POOL[pool])
        last[0].weight.copy_(self.grow.weight[: LAST * width, :width])
        self.grow_norm.fill(last[1])
        last[4].weight.copy_(self.mix.weight[:features, : LAST * width])
        last[8].weight.copy_(self.classify.weight[:, :features])
        last[8].bias.copy_(self.classify.bias)
        return network  # type: ignore[no-any-return]


class TranslatorSupernet(nn.Module):
    """SuperTransformer: a translator of the largest sizes, run as any smaller one."""

    nested = True

    def __init__(self, space: SuperTransformer, most: Translator) -> None:
        super().__init__()
        self.space, self.most = space, most

    def forward(self, *x: Tensor, path: Path) -> Tensor:
        sizes, embeds = self.space.sizes(path.index), 2 * self.space.embeds
        encoder = len(sizes.encoder)

        def step(i: int, y: Tensor, layer: Callable[[Tensor], Tensor]) -> Tensor:
            slot = embeds + i + (i >= encoder)  # the depth stands between
            return path.run(slot, y, _Candidates(len(self.space.slots[slot]), lambda _, z: layer(z)))

        source, target = x
        out = self.most.run(source, target, sizes, step)
        if path.gates is None:
            return out
        for slot in (*range(embeds), embeds + encoder):  # what has no layer of its own
            out = out * path.gates[slot][path.index[slot]]
        return out

    def extract(self, arch: Sequence[int]) -> nn.Module:
        return self.most.plain(self.space.sizes(arch))


class _Candidates(Sequence[Callable[[Tensor], Tensor]]):
    """What a slot can run, each made when it is asked for."""

    def __init__(self, count: int, run: Callable[[int, Tensor], Tensor]) -> None:
        self.many, self.run = count, run

    def __len__(self) -> int:
        return self.many

    def __getitem__(self, k: Any) -> Any:
        return partial(self.run, k)
