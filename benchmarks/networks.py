"""Networks that are given to `sartor compress` in benchmarks: `networks.py:FUNCTION?option=value`."""

from __future__ import annotations

from typing import Any

from torch import nn

import sartor
from common import RESULTS
from sartor.data.vision import import_torchvision
from sartor.runs import read_json


def mobilenet_v2(width: float = 1.0, classes: int = 10) -> nn.Module:
    """torchvision's MobileNetV2, all 17 blocks, for images of about 32 pixels: neither the stem nor the second stage
    halves them."""
    strides = (1, 1, 2, 2, 1, 2, 1)
    shape = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))
    stages = [[expand, channels, count, stride] for (expand, channels, count), stride in zip(shape, strides)]
    made: Any = import_torchvision().models.mobilenet_v2(
        num_classes=classes, width_mult=width, inverted_residual_setting=stages
    )
    made.features[0][0].stride = (1, 1)
    return made  # type: ignore[no-any-return]  # an nn.Module


def resnet20(width: float = 1.0) -> nn.Module:
    """The ResNet-20 of He et al. (2016, section 4.2) for images of 32 pixels and ten classes: nine basic blocks, with
    projections where the shape changes."""
    return _resnet(16 * width, stages=3, blocks=3)


def resnet18(width: float = 1.0) -> nn.Module:
    """ResNet-18 for images of about 32 pixels and ten classes: its stem is one 3x3 convolution, and nothing is pooled
    behind it."""
    return _resnet(64 * width, stages=4, blocks=2)


def _resnet(first: float, stages: int, blocks: int) -> nn.Module:
    block = import_torchvision().models.resnet.BasicBlock
    layers: list[nn.Module] = []
    own = before = max(round(first), 1)
    layers += [nn.Conv2d(3, own, 3, padding=1, bias=False), nn.BatchNorm2d(own), nn.ReLU(inplace=True)]
    for stage in range(stages):
        channels = max(round(first * 2**stage), 1)
        for i in range(blocks):
            stride = 2 if stage and not i else 1
            change = stride > 1 or before != channels
            conv = nn.Conv2d(before, channels, 1, stride, bias=False)
            layers.append(
                block(before, channels, stride, nn.Sequential(conv, nn.BatchNorm2d(channels)) if change else None)
            )
            before = channels
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10))


def lightnet(width: float = 0.5) -> nn.Module:
    """The network that LightNAS found with seed 0 at .309 ms in accuracy.json, for images of ten classes."""
    rows = read_json(RESULTS / "accuracy.json")["rows"]
    cell = {"limit_ms": 0.309, "seed": 0, "what": "search"}
    (found,) = (row["lightnas"] for row in rows if row["cell"] == cell)
    return sartor.spaces.get(f"mobilenet:cifar?width={width}").network(tuple(found))


def pruned(file: str, model: str = "mobilenet_v2", width: float = 1.0) -> nn.Module:
    """A model above with as many channels a layer as the state dict in the file has."""
    from safetensors.torch import load_file

    network: nn.Module = globals()[model](width)
    shapes = {name: tuple(tensor.shape) for name, tensor in load_file(file).items()}
    for name, layer in list(network.named_modules()):
        if isinstance(layer, nn.Conv2d):
            out, own, *_ = shapes[f"{name}.weight"]
            groups = out if layer.groups > 1 else 1
            conv: Any = nn.Conv2d(
                own * groups, out, layer.kernel_size, layer.stride, layer.padding, groups=groups, bias=False
            )  # type: ignore[arg-type]
            network.set_submodule(name, conv)
        elif isinstance(layer, nn.BatchNorm2d):
            network.set_submodule(name, nn.BatchNorm2d(shapes[f"{name}.weight"][0]))
        elif isinstance(layer, nn.Linear):
            network.set_submodule(name, nn.Linear(*reversed(shapes[f"{name}.weight"])))
    return network
