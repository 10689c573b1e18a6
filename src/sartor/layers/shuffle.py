"""Choice blocks of ShuffleNetV2 as SPOS has them (Z. Guo et al., ECCV 2020; ALGORITHMS 2.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sartor.layers.mbconv import conv_norm_act


class ShuffleBlock(nn.Module):
    """A main branch beside a shortcut; (B, inputs, H, W) -> (B, outputs, h, w).

    inputs = outputs: even channels of the input are the shortcut and odd ones the main branch's input, which is shuffle
    and split in one; each is half of the output. Otherwise, as SPOS has it where the stride is 2, both branches see all
    channels, and the shortcut, a depthwise and a 1x1 convolution, makes as many as there were.
    kernel: of 1x1, depthwise, 1x1; None: three times depthwise 3x3 and 1x1 (`choice_x`, after Xception).
    """

    def __init__(self, inputs: int, outputs: int, kernel: int | None, stride: int) -> None:
        super().__init__()
        widens = stride > 1 or inputs != outputs
        taken = inputs if widens else inputs // 2
        hidden, made, size = outputs // 2, outputs - taken, kernel or 3
        if kernel is None:
            main = _separable(taken, hidden, 3, stride) + _separable(hidden, hidden, 3) + _separable(hidden, made, 3)
        else:
            main = conv_norm_act(taken, hidden, 1, act=nn.ReLU) + _separable(hidden, made, kernel, stride)
        self.main = nn.Sequential(*main)
        self.shortcut = nn.Sequential(*_separable(inputs, inputs, size, stride)) if widens else None

    def forward(self, x: Tensor) -> Tensor:
        if self.shortcut is None:
            return torch.cat((x[:, ::2], self.main(x[:, 1::2])), 1)
        return torch.cat((self.shortcut(x), self.main(x)), 1)


def _separable(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    """Depthwise and norm, then 1x1, norm and ReLU."""
    depthwise = conv_norm_act(inputs, inputs, kernel, stride, depthwise=True, act=None)
    return [*depthwise, *conv_norm_act(inputs, outputs, 1, act=nn.ReLU)]


def published_init(module: nn.Module, std: float | None = None) -> nn.Module:
    """Weights as in SPOS' code: N(0, 1 / input channels of a filter), or N(0, std); linear layers N(0, .01)."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, 0.0, std or 1.0 / layer.weight.shape[1])
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0.0, 0.01)
    return module
