"""Layers that hold several sizes of themselves in one set of weights (H. Cai et al., Once-for-All, ICLR 2020)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sartor.layers.depthwise import depthwise
from sartor.layers.mbconv import MBConv, SqueezeExcite, make_divisible


class SlicedNorm(nn.BatchNorm2d):
    """Batch norm of the first channels, as many as come in; statistics and scales are shared by all widths."""

    def forward(self, x: Tensor) -> Tensor:
        c, momentum = x.shape[1], self.momentum
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        if self.training:
            self.num_batches_tracked.add_(1)
            momentum = 1.0 / float(self.num_batches_tracked) if momentum is None else momentum
        return functional.batch_norm(
            x,
            self.running_mean[:c],
            self.running_var[:c],
            self.weight[:c],
            self.bias[:c],
            self.training,
            momentum or 0.0,
            self.eps,
        )

    def fill(self, norm: nn.BatchNorm2d) -> None:
        """Copy what belongs to a plain norm's channels into it."""
        for name, value in norm.state_dict().items():
            own = getattr(self, name)
            value.copy_(own if own.dim() == 0 else own[: len(value)])


class ElasticMBConv(nn.Module):
    """An inverted residual block of any of some kernels and expansions, from and to any of the first channels.

    Narrower blocks are the first channels, smaller kernels the middle of larger ones turned by a matrix that starts as
    the identity. `run` is a block; `plain` is the same block as an `MBConv` of its own. An expansion of 1 has no first
    convolution.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        se: bool,
        act: Callable[[], nn.Module],
        kernels: Sequence[int],
        expansions: Sequence[int],
    ) -> None:
        super().__init__()
        self.shape = inputs, outputs, stride, se
        self.make_act, self.kernels = act, sorted(kernels, reverse=True)
        hidden = inputs * max(expansions)
        self.expand = nn.Conv2d(inputs, hidden, 1, bias=False) if max(expansions) > 1 else None
        self.expand_norm = SlicedNorm(hidden) if max(expansions) > 1 else None
        self.depth = nn.Conv2d(hidden, hidden, self.kernels[0], groups=hidden, bias=False)
        self.turn = nn.ParameterDict({str(k): nn.Parameter(torch.eye(k * k)) for k in self.kernels[1:]})
        self.depth_norm = SlicedNorm(hidden)
        self.gate = SqueezeExcite(hidden).gate if se else None
        self.project = nn.Conv2d(hidden, outputs, 1, bias=False)
        self.project_norm = SlicedNorm(outputs)
        self.act = act()

    def kernel(self, size: int, channels: int) -> Tensor:
        """(channels, 1, size, size): cut from the largest, one size after the other."""
        weight = self.depth.weight[:channels]
        for k in self.kernels[1 : self.kernels.index(size) + 1]:
            edge = (weight.shape[-1] - k) // 2
            middle = weight[:, :, edge : edge + k, edge : edge + k]
            weight = (middle.reshape(channels, k * k) @ self.turn[str(k)]).reshape(channels, 1, k, k)
        return weight

    def _gate(self, channels: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weights and biases of the two convolutions of the squeeze-excite."""
        gate: Any = self.gate
        first, second, inner = gate[1], gate[3], make_divisible(channels / 4)
        reduce = first.weight[:inner, :channels], first.bias[:inner]
        return *reduce, second.weight[:channels, :inner], second.bias[:channels]

    def run(self, x: Tensor, kernel: int, expansion: int, outputs: int | None = None) -> Tensor:
        _, most, stride, _ = self.shape
        inputs, outputs = x.shape[1], most if outputs is None else outputs
        channels, y = inputs * expansion, x
        if expansion > 1:
            assert self.expand is not None
            assert self.expand_norm is not None
            y = self.act(self.expand_norm(functional.conv2d(y, self.expand.weight[:channels, :inputs])))
        y = depthwise(y, self.kernel(kernel, channels), stride)
        y = self.act(self.depth_norm(y))
        if self.gate is not None:
            w1, b1, w2, b2 = self._gate(channels)
            inner = functional.relu(functional.conv2d(functional.adaptive_avg_pool2d(y, 1), w1, b1))
            y = y * functional.hardsigmoid(functional.conv2d(inner, w2, b2))
        y = self.project_norm(functional.conv2d(y, self.project.weight[:outputs, :channels]))
        out: Tensor = x + y if stride == 1 and inputs == outputs else y
        return out

    @torch.no_grad()
    def plain(self, kernel: int, expansion: int, inputs: int | None = None, outputs: int | None = None) -> MBConv:
        """The block of this size, with a copy of its weights."""
        widest, most, stride, se = self.shape
        inputs, outputs = widest if inputs is None else inputs, most if outputs is None else outputs
        channels = inputs * expansion
        block = MBConv(inputs, outputs, kernel, expansion, stride, se, self.make_act).to(self.project.weight.device)
        body: list[Any] = list(block.body)
        if expansion > 1:
            assert self.expand is not None
            assert self.expand_norm is not None
            body[0].weight.copy_(self.expand.weight[:channels, :inputs])
            self.expand_norm.fill(body[1])
            body = body[3:]
        body[0].weight.copy_(self.kernel(kernel, channels))
        self.depth_norm.fill(body[1])
        if se:
            gate = body[3].gate
            plain = gate[1].weight, gate[1].bias, gate[3].weight, gate[3].bias
            for target, source in zip(plain, self._gate(channels)):
                target.copy_(source)
        body[-2].weight.copy_(self.project.weight[:outputs, :channels])
        self.project_norm.fill(body[-1])
        return block
