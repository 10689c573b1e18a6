"""Linear layers in a row as one convolution, and what happens to zeros that are padded between them.

Layers: convolutions, batch norms (in evaluation), `Affine`, paddings; what does nothing in evaluation is passed over.
Where a layer pads what the layers before it give, the network has zeros around that map, the merged convolution what
the layers before would give there: their biases, at least. Four ways to live with that (`Border`):

    pad-first   all padding moves to the front, before training; merging is exact, always. The network is another one
                at the border: it is trained like that, or trained on.
    bias-pad    maps between are padded with what the layers before give for zeros: exact behind 1x1 convolutions.
    bias-map    the network stays as it is, and the bias becomes a map: exact behind 1x1 convolutions, for one size.
    ignore      the network stays as it is, and the merged convolution is another one at the border.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from sartor.core import UserError
from sartor.layers.affine import Affine
from sartor.reparam.merge import Kernel, Pair, affine_of, identity, in_row, kernel_of, padding_of, scaled

Border = Literal["pad-first", "bias-pad", "bias-map", "ignore"]
BORDERS = get_args(Border)
PASSED_OVER = (nn.Identity, nn.Dropout, nn.Dropout2d)


class BiasPad(nn.Module):
    """Pads each channel with what the layers before give for zeros.

    Batch norms count with running statistics, in training, too, and no gradient flows through what is padded.
    """

    def __init__(self, before: Sequence[nn.Module], padding: Pair) -> None:
        super().__init__()
        self.before, self.padding = tuple(before), padding  # in a tuple they are not this module's own

    def forward(self, x: Tensor) -> Tensor:
        vertical, horizontal = self.padding
        values = merged(self.before).bias.to(x)[:, None, None]
        return functional.pad(x - values, (horizontal, horizontal, vertical, vertical)) + values


class MappedConv(nn.Module):
    """A convolution whose bias is a map (channels, height, width): for inputs of one size."""

    def __init__(self, conv: nn.Conv2d, bias: Tensor) -> None:
        super().__init__()
        self.conv, self.map = conv, nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x) + self.map
        return out


def merged(layers: Sequence[nn.Module]) -> Kernel:
    """All layers as one convolution, exact away from the border. Raises UserError for a layer that is not linear."""
    found: Kernel | None = None
    front: Pair = (0, 0)
    for layer in layers:
        if isinstance(layer, PASSED_OVER):
            continue
        if isinstance(layer, nn.ZeroPad2d) and found is None:
            front = (layer.padding[2], layer.padding[0])
        elif isinstance(layer, nn.Conv2d):
            found = kernel_of(layer) if found is None else in_row(found, kernel_of(layer))
        elif isinstance(layer, nn.BatchNorm2d | Affine):
            scale, shift = affine_of(layer) if isinstance(layer, nn.BatchNorm2d) else (layer.scale, layer.shift)
            found = scaled(identity(scale) if found is None else found, scale.detach(), shift.detach())
        elif isinstance(layer, BiasPad) and found is not None:
            found = in_row(found, replace(identity(found.bias), padding=layer.padding))
        else:
            raise UserError(f"{type(layer).__name__} cannot be merged; convolutions, batch norms and `Affine` can.")
    if found is None:
        raise UserError("nothing to merge: there is neither convolution nor batch norm.")
    return replace(found, padding=(found.padding[0] + front[0], found.padding[1] + front[1]))


def converted(layers: Sequence[nn.Module], border: Border) -> list[nn.Module]:
    """The layers, changed in place and with others between, so that padding is where `border` has it.

    Raises UserError for `bias-pad` and `bias-map` where a layer before the padded one is no 1x1 convolution.
    """
    layers = [layer for layer in layers if not isinstance(layer, nn.Identity)]
    convs = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    if border == "pad-first":
        total, stride = [0, 0], [1, 1]
        for conv in convs:
            total = [t + s * p for t, s, p in zip(total, stride, padding_of(conv))]
            stride = [s * by for s, by in zip(stride, conv.stride)]
            conv.padding = (0, 0)
        if convs and layers[0] is convs[0]:
            convs[0].padding = (total[0], total[1])
        elif any(total):
            layers.insert(0, nn.ZeroPad2d((total[1], total[1], total[0], total[0])))
    elif border != "ignore":
        for conv in convs:
            at = layers.index(conv)
            if at == 0 or padding_of(conv) == (0, 0):
                continue
            before = merged(layers[:at])
            if before.size != (1, 1) or before.padding != (0, 0):
                raise UserError(
                    f"{border} is exact only where 1x1 convolutions are before the one that pads; use pad-first."
                )
            if border == "bias-pad":
                layers.insert(at, BiasPad(layers[:at], padding_of(conv)))
                conv.padding = (0, 0)
    return layers


def collapsed(layers: Sequence[nn.Module], border: Border, size: Pair | None = None) -> nn.Module:
    """One layer that computes what `converted` layers do in evaluation. size: of the inputs, for `bias-map`.

    Its type and device are those of the first weight.
    """
    like = next(parameter for layer in layers for parameter in layer.parameters())
    kernel = merged(layers)
    if border != "bias-map":
        return kernel.conv(like)
    if size is None:
        raise UserError("bias-map is for inputs of one size; give it.")
    with torch.no_grad():
        zeros = torch.zeros(1, kernel.weight.shape[1], *size)
        chain = copy.deepcopy(nn.Sequential(*layers)).double().eval()
        response = chain(zeros.to(like.device, torch.float64))[0]
    return MappedConv(replace(kernel, bias=torch.zeros_like(kernel.bias)).conv(like), response.to(like))


def border_error(layers: Sequence[nn.Module], x: Tensor) -> tuple[float, float]:
    """(at the border, inside): how far plain merging is from the layers, most over x (batch, channels, height, width).

    Relative to the largest output. Inside are the outputs that see no padding.
    """
    with torch.no_grad():
        chain, kernel = copy.deepcopy(nn.Sequential(*layers)).double().eval(), merged(layers)
        right = chain(x.double())
        apart = (kernel.conv(x.double())(x.double()) - right).abs().amax((0, 1)) / right.abs().max()
    inside = torch.ones_like(apart, dtype=torch.bool)
    for axis, (k, s, p) in enumerate(zip(kernel.size, kernel.stride, kernel.padding)):
        first = torch.arange(apart.shape[axis], device=x.device) * s - p
        sees = (first >= 0) & (first + k <= x.shape[2 + axis])
        inside &= sees[:, None] if axis == 0 else sees[None]
    ring = apart[~inside]
    return (float(ring.max()) if len(ring) else 0.0), (float(apart[inside].max()) if inside.any() else 0.0)
