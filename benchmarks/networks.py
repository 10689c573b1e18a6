"""Networks that are given to `sartor compress` in benchmarks: `networks.py:FUNCTION?option=value`."""

from __future__ import annotations

from typing import Any

from torch import nn

from sartor.data.vision import import_torchvision


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


def pruned(file: str, width: float = 1.0, classes: int = 10) -> nn.Module:
    """The same with as many channels a layer as the state dict in the file has."""
    from safetensors.torch import load_file

    network = mobilenet_v2(width, classes)
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
