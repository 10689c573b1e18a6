"""A block with some or all of its inner activations gone, and what it collapses to.

X. Luo et al., "Domino", thesis 5.3.1 and Fig. 5.1. A block that is grafted whole becomes one convolution, its shortcut
folded in, with an activation behind it, as published; where the block had none, it is the one that was inside, and it
follows the sum (`last="add"`), or there is none there, either (`leave`). What the grafted "linear activation layer" is,
the thesis does not say: it costs time, so it is one; `affine` is a factor and a shift a channel. Behind a batch norm it
adds nothing that the norm could not do: the default is nothing. Partial grafts (ours) merge two neighbouring
convolutions and keep the other activations; `skip` leaves the shortcut alone.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from sartor.core.errors import unknown
from sartor.layers.affine import Affine
from sartor.reparam.blocks import ACTIVATIONS, Block
from sartor.reparam.border import Border, collapsed, converted, merged
from sartor.reparam.merge import Pair, identity, side_by_side
from sartor.reparam.pro import enlarged

Linear = Literal["identity", "affine"]
Last = Literal["add", "leave"]
LINEAR, LAST = get_args(Linear), get_args(Last)


class Grafted(nn.Module):
    """Rows of linear layers with activations between, a shortcut around them, activations behind the sum.

    border: where the rows have their padding, `reparam.border`, None: where the block has it, and nothing is merged;
    size: (height, width) of inputs, for `bias-map`.
    """

    def __init__(
        self,
        rows: Sequence[Sequence[nn.Module]],
        between: Sequence[nn.Module],
        shortcut: Sequence[nn.Module] | None,
        after: Sequence[nn.Module],
        border: Border | None,
        size: Pair | None = None,
    ) -> None:
        super().__init__()
        self.border = border
        self.size = size
        self.rows = nn.ModuleList(nn.Sequential(*(converted(row, border) if border else row)) for row in rows)
        self.between = nn.ModuleList(between)
        self.shortcut = None if shortcut is None else nn.Sequential(*shortcut)
        self.after = nn.Sequential(*after)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for i, row in enumerate(self.rows):
            y = row(y if i == 0 else self.between[i - 1](y))
        if self.shortcut is not None:
            y = y + self.shortcut(x) if len(self.rows) else self.shortcut(x)
        out: Tensor = self.after(y)
        return out

    def collapse(self) -> nn.Module:
        """The same outputs in evaluation from plain layers, one convolution a row; of a block that is kept its own.

        The shortcut of a single row is part of its convolution, except with `bias-map`.
        """
        if self.border is None:
            return copy.deepcopy(self).eval()
        after = copy.deepcopy(self.after).eval()
        around = None if self.shortcut is None else list(self.shortcut)
        if len(self.rows) == 1 and self.border != "bias-map":
            kernel = merged(list(self.rows[0].children()))
            if around is not None:
                kernel = side_by_side(kernel, merged(around) if around else identity(kernel.bias))
            return nn.Sequential(kernel.conv(next(self.rows.parameters())), *after)
        plain = [collapsed(around, "ignore")] if around else around
        rows: list[nn.Module] = []
        size = self.size
        for row in self.rows:
            layers = list(row.children())
            rows.append(self._plain(layers, self.border, size))
            if size is not None and layers:
                x = next(row.parameters()).new_zeros(1, merged(layers).weight.shape[1], *size)
                with torch.no_grad():
                    size = rows[-1](x).shape[2:]
        between = copy.deepcopy(self.between).eval()
        if not rows:
            return nn.Sequential(*(plain or ()), *after)
        return Grafted([[row] for row in rows], list(between), plain, list(after), "ignore")

    @staticmethod
    def _plain(row: list[nn.Module], border: Border, size: Pair | None) -> nn.Module:
        if not any(isinstance(layer, nn.Conv2d) for layer in row):
            return copy.deepcopy(nn.Sequential(*row)).eval()  # a norm before everything stays one
        return collapsed(row, border, size)


def candidates(block: Block) -> tuple[str, ...]:
    """What can be made of it: `keep`, `graft` (whole), `first` and `last` (two convolutions), `skip` (its shortcut)."""
    partial = ("first", "last") if len(block.gaps) > 1 else ()
    return ("keep", "graft", *partial, *(("skip",) if block.shortcut is not None else ()))


def graft(
    block: Block,
    candidate: str,
    border: Border = "pad-first",
    linear: Linear = "identity",
    last: Last = "add",
    size: Pair | None = None,
    wider: int = 1,
    deeper: int = 0,
) -> Grafted:
    """The block as that candidate, its weights and statistics shared with the block's. size: as of `Grafted`.

    last: whether a whole graft of a block without an activation behind it gets one.

    wider, deeper: how much larger merged rows of several convolutions are while they are trained (`reparam.pro`); they
    share nothing then. Raises UserError for a candidate that it has not.
    """
    if candidate not in candidates(block):
        raise unknown(f"candidate of block {block.name!r}:", candidate, candidates(block))
    shortcut = None if block.shortcut is None else [_sharing(layer) for layer in block.shortcut]
    after = [copy.deepcopy(layer) for layer in block.after]
    if candidate == "skip":
        for layer in after:
            if hasattr(layer, "inplace"):
                setattr(layer, "inplace", False)  # noqa: B010  # no field of nn.Module; what is before needs its outputs
        return Grafted((), (), shortcut, after, border, size)
    gaps = block.gaps
    gone = {"keep": (), "graft": gaps, "first": gaps[:1], "last": gaps[-1:]}[candidate]
    rows: list[list[nn.Module]] = [[]]
    between: list[nn.Module] = []
    for i, layer in enumerate(block.chain):
        if not isinstance(layer, ACTIVATIONS):
            rows[-1].append(_sharing(layer))
        elif i not in gone:
            between.append(copy.deepcopy(layer))
            rows.append([])
        elif linear == "affine":
            rows[-1].append(Affine(_channels(rows[-1])))
    if candidate == "graft" and not after and last == "add":
        after = [copy.deepcopy(block.chain[gaps[-1]])]
    if candidate == "keep":
        return Grafted(rows, between, shortcut, after, None, size)
    if (wider, deeper) != (1, 0):
        rows = [enlarged(row, wider, deeper) for row in rows]
    return Grafted(rows, between, shortcut, after, border, size)


def _sharing(layer: nn.Module) -> nn.Module:
    """A copy of a layer with the very same tensors."""
    return copy.deepcopy(layer, {id(tensor): tensor for tensor in (*layer.parameters(), *layer.buffers())})


def _channels(row: Sequence[nn.Module]) -> int:
    return next(layer.out_channels for layer in reversed(row) if isinstance(layer, nn.Conv2d))
