"""Grafted rows made larger while they are trained, which collapse to the same convolution: Domino-Pro.

X. Luo et al., "Domino", thesis 5.3.5 and Fig. 5.9: inner convolutions with more channels, and further 1x1 convolutions
between them. Factors are not published. What is made larger begins with the same outputs, as in T. Chen et al.,
"Net2Net", ICLR 2016: channels are copied, what reads them is split among the copies in random shares, so that they
learn different things, and further convolutions begin as identities.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from sartor.layers.affine import Affine


def enlarged(row: Sequence[nn.Module], factor: int, extra: int) -> list[nn.Module]:
    """Linear layers with `factor` times the channels inside, and `extra` 1x1 convolutions before the second one.

    Where there are fewer than two convolutions nothing is inside, and the row is as it was. Layers that change are new.
    """
    count, seen, out = sum(isinstance(layer, nn.Conv2d) for layer in row), 0, list[nn.Module]()
    if count < 2:
        return list(row)
    for layer in row:
        if isinstance(layer, nn.Conv2d):
            if seen == 1:
                out += [_nothing(layer.in_channels * factor, layer) for _ in range(extra)]
            out.append(_wide(layer, factor if seen else 1, factor if seen < count - 1 else 1))
            seen += 1
        elif isinstance(layer, nn.BatchNorm2d | Affine) and 0 < seen < count:
            out.append(_repeated(layer, factor))
        else:
            out.append(layer)
    return out


def _wide(conv: nn.Conv2d, inputs: int, outputs: int) -> nn.Conv2d:
    """With each input and output channel that many times, next to each other; the same groups."""
    weight = conv.weight.detach()
    wide = nn.Conv2d(
        conv.in_channels * inputs,
        conv.out_channels * outputs,
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        conv.dilation,  # type: ignore[arg-type]
        conv.groups,
        conv.bias is not None,
        conv.padding_mode,
    ).to(weight)
    shares = 0.5 + weight.new_empty(conv.out_channels * outputs, weight.shape[1], inputs).uniform_()
    shares = (shares / shares.sum(2, keepdim=True)).flatten(1)[:, :, None, None]
    with torch.no_grad():
        wide.weight.copy_(weight.repeat_interleave(outputs, 0).repeat_interleave(inputs, 1) * shares)
        if conv.bias is not None and wide.bias is not None:
            wide.bias.copy_(conv.bias.repeat_interleave(outputs))
    return wide


def _repeated(layer: nn.BatchNorm2d | Affine, factor: int) -> nn.Module:
    """Of each channel that many."""
    if isinstance(layer, Affine):
        wide: nn.Module = Affine(len(layer.scale) * factor)
    else:
        wide = nn.BatchNorm2d(layer.num_features * factor, layer.eps, layer.momentum, layer.affine)
    state = {k: v.repeat_interleave(factor) if v.dim() else v for k, v in layer.state_dict().items()}
    wide.to(next(iter(state.values()))).load_state_dict(state)
    return wide.train(layer.training)


def _nothing(channels: int, like: nn.Conv2d) -> nn.Conv2d:
    """A 1x1 convolution that begins as the identity."""
    conv = nn.Conv2d(channels, channels, 1, bias=False).to(like.weight)
    nn.init.dirac_(conv.weight)
    return conv
