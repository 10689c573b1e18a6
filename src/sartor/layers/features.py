"""The maps of a network at each of its resolutions: what detectors and segmenters are built on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from sartor.core.errors import UserError


class Stages(nn.Module):
    """(B, C, H, W) -> its last map at each resolution, finest first. The classifier is gone."""

    def __init__(self, stages: list[nn.Sequential]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps)


def features_only(network: nn.Module, x: Tensor) -> nn.Module:
    """A module of the network's own layers, which gives its last map at each resolution, finest first.

    network: takes an image and has maps of four dimensions before it pools them; x: an example (B, C, H, W).
    A network of another make than a chain is traced. Raises UserError where that cannot be done, or nothing is found.
    """
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            found = _chain(network, x) if isinstance(network, nn.Sequential) else _traced(network, x)
    finally:
        network.train(training)
    return found.train(training)


def shapes(features: nn.Module, x: Tensor) -> list[tuple[int, ...]]:
    """Channels, height and width of each map."""
    training = features.training
    with torch.no_grad():
        maps = features.eval()(x)
    features.train(training)
    return [tuple(one.shape[1:]) for one in maps]


def _chain(network: nn.Sequential, x: Tensor) -> nn.Module:
    stages: list[list[nn.Module]] = []
    left: list[nn.Module] = []  # behind the last map, so far without one of their own
    size = None
    for module in _flat(network):
        if isinstance(module, nn.AdaptiveAvgPool2d):
            break
        x = module(x)
        left.append(module)
        if x.dim() != 4:
            continue
        if x.shape[-1] != size:
            size = x.shape[-1]
            stages.append([])
        stages[-1] += left
        left = []
    if not stages:
        raise UserError("this network has no maps of an image before it pools them; give one of an image space.")
    return Stages([nn.Sequential(*stage) for stage in stages])


def _flat(network: nn.Sequential) -> Iterator[nn.Module]:
    """Its parts, and what the last one of them, the classifier, is made of."""
    *parts, last = network
    yield from parts
    yield from last if isinstance(last, nn.Sequential) else [last]


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return super().is_leaf_module(m, module_qualified_name) or type(m).__module__.startswith("sartor.")


def _traced(network: nn.Module, x: Tensor) -> nn.Module:
    try:
        graph = _Tracer().trace(network)
        module = fx.GraphModule(network, graph)
        ShapeProp(module).propagate(x)
    except Exception as error:
        first = str(error).strip().partition("\n")[0][:120]
        raise UserError(
            f"the features of this network cannot be traced ({first}); give one of an image space."
        ) from error
    maps: dict[int, Any] = {}
    height, width = x.shape[-2:]
    for node in graph.nodes:
        called = module.get_submodule(node.target) if node.op == "call_module" else node.target
        if isinstance(called, nn.AdaptiveAvgPool2d) or called is nn.functional.adaptive_avg_pool2d:
            break
        shape: tuple[int, ...] = tuple(getattr(node.meta.get("tensor_meta"), "shape", ()))
        if len(shape) != 4 or node.op in ("placeholder", "get_attr"):
            continue
        if shape[-1] > 1 and abs(shape[-2] / height - shape[-1] / width) < 1 / height:  # else channels are last
            maps[shape[-1]] = node
    (output,) = (node for node in graph.nodes if node.op == "output")
    output.args = (tuple(maps[size] for size in sorted(maps, reverse=True)),)
    graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.recompile()
    return module
