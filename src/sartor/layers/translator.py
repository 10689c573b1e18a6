"""An encoder-decoder transformer whose every size is an argument: all sizes in one set of weights, or one by itself.

A. Vaswani et al., "Attention Is All You Need", NeurIPS 2017 (norms after the sum); what can differ by layer is that of
H. Wang et al., "HAT: Hardware-Aware Transformers", ACL 2020: hidden features, heads, and how many of the last encoder
layers a decoder layer attends to.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

PAD = 0

Encoder: TypeAlias = tuple[int, int]
"""Hidden features and heads of a layer."""
Decoder: TypeAlias = tuple[int, int, int, int]
"""Hidden features, heads of self-attention and of cross-attention, encoder layers attended to, from the last."""


@dataclass(frozen=True)
class Sizes:
    """embed: features of encoder and decoder; layers: of each."""

    encoder_embed: int
    decoder_embed: int
    encoder: tuple[Encoder, ...]
    decoder: tuple[Decoder, ...]


Step: TypeAlias = Callable[[int, Tensor, Callable[[Tensor], Tensor]], Tensor]


def _plainly(_: int, x: Tensor, layer: Callable[[Tensor], Tensor]) -> Tensor:
    return layer(x)


class Translator(nn.Module):
    """Tokens (B, S) and the tokens so far (B, T), both int64 and 0 where padded, to logits (B, T, vocabulary).

    sizes: what it is built for, and runs as unless told otherwise; qkv: features of queries, keys and values, split
    among the heads. The decoder's embedding is also its output layer. A smaller network uses the first features of
    everything.
    """

    def __init__(self, sizes: Sizes, *, source: int, target: int, qkv: int, dropout: float) -> None:
        super().__init__()
        self.sizes, self.drop = sizes, nn.Dropout(dropout)
        self.source = nn.Embedding(source, sizes.encoder_embed, padding_idx=PAD)
        self.target = nn.Embedding(target, sizes.decoder_embed, padding_idx=PAD)
        for table in (self.source, self.target):
            nn.init.normal_(table.weight, std=table.embedding_dim**-0.5)
        e, d = sizes.encoder_embed, sizes.decoder_embed
        self.encoder = nn.ModuleList(_Layer(e, qkv, ffn, dropout) for ffn, _ in sizes.encoder)
        self.decoder = nn.ModuleList(_Layer(d, qkv, ffn, dropout, memory=e) for ffn, *_ in sizes.decoder)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        return self.run(source, target, self.sizes)

    def run(self, source: Tensor, target: Tensor, sizes: Sizes, step: Step | None = None) -> Tensor:
        """As the network of these sizes, none larger than its own.

        step: runs a layer: given which one, counted through encoder and decoder, its input, and the layer.
        """
        step = _plainly if step is None else step
        hidden = (source == PAD)[:, None, None, :]
        x, outputs = self._embed(self.source, source, sizes.encoder_embed), []
        for i, (layer, (ffn, heads)) in enumerate(zip(self.encoder, sizes.encoder)):
            x = step(i, x, partial(layer, hidden=hidden, ffn=ffn, heads=heads))
            outputs.append(x)
        steps = target.shape[1]
        later = torch.ones(steps, steps, dtype=torch.bool, device=target.device).triu(1)
        y = self._embed(self.target, target, sizes.decoder_embed)
        for i, (layer, (ffn, own, cross, last)) in enumerate(zip(self.decoder, sizes.decoder)):
            seen = {"memory": torch.cat(outputs[-last:], dim=1), "covered": hidden.repeat(1, 1, 1, last)}
            run = partial(layer, hidden=later, ffn=ffn, heads=own, cross=cross, **seen)
            y = step(len(outputs) + i, y, run)
        return functional.linear(y, self.target.weight[:, : sizes.decoder_embed])

    def _embed(self, table: nn.Embedding, tokens: Tensor, features: int) -> Tensor:
        x = functional.embedding(tokens, table.weight[:, :features], PAD) * math.sqrt(features)
        out: Tensor = self.drop(x + _positions(tokens.shape[1], features, x))
        return out

    @torch.no_grad()
    def plain(self, sizes: Sizes) -> Translator:
        """The network of these sizes, with a copy of its weights."""
        some = self.encoder[0]
        assert isinstance(some, _Layer)
        alone = Translator(
            sizes,
            source=self.source.num_embeddings,
            target=self.target.num_embeddings,
            qkv=some.attention.qkv,
            dropout=self.drop.p,
        ).to(self.source.weight.device)
        mine = self.state_dict()
        for name, value in alone.state_dict().items():
            value.copy_(mine[name][tuple(slice(n) for n in value.shape)])
        return alone


class _Layer(nn.Module):
    """Self-attention, in a decoder cross-attention, and a perceptron, each added and then normed."""

    def __init__(self, embed: int, qkv: int, ffn: int, dropout: float, memory: int | None = None) -> None:
        super().__init__()
        self.attention = _Attention(embed, embed, qkv)
        self.cross = None if memory is None else _Attention(embed, memory, qkv)
        self.first, self.second = nn.Linear(embed, ffn), nn.Linear(ffn, embed)
        self.norms = nn.ModuleList(nn.LayerNorm(embed) for _ in range(2 if memory is None else 3))
        self.drop = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        hidden: Tensor,
        ffn: int,
        heads: int,
        memory: Tensor | None = None,
        covered: Tensor | None = None,
        cross: int = 0,
    ) -> Tensor:
        x = self._norm(0, x + self.drop(self.attention(x, x, hidden, heads)))
        if self.cross is not None:
            x = self._norm(-2, x + self.drop(self.cross(x, memory, covered, cross)))
        inner = functional.relu(_linear(self.first, x, ffn))
        return self._norm(-1, x + self.drop(_linear(self.second, inner, x.shape[-1])))

    def _norm(self, i: int, x: Tensor) -> Tensor:
        norm, n = self.norms[i], x.shape[-1]
        return functional.layer_norm(x, (n,), norm.weight[:n], norm.bias[:n], norm.eps)  # type: ignore[index, arg-type]


class _Attention(nn.Module):
    """Scaled products of queries with keys of `memory` (B, M, features); `hidden` is true where none may look."""

    def __init__(self, embed: int, memory: int, qkv: int) -> None:
        super().__init__()
        self.qkv = qkv
        self.query, self.key, self.value = nn.Linear(embed, qkv), nn.Linear(memory, qkv), nn.Linear(memory, qkv)
        self.out = nn.Linear(qkv, embed)

    def forward(self, x: Tensor, memory: Tensor, hidden: Tensor, heads: int) -> Tensor:
        b, n, features = x.shape

        def split(layer: nn.Linear, of: Tensor) -> Tensor:
            return _linear(layer, of, self.qkv).reshape(b, of.shape[1], heads, -1).transpose(1, 2)

        q, k, v = split(self.query, x), split(self.key, memory), split(self.value, memory)
        weight = (q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])).masked_fill(hidden, -torch.inf).softmax(dim=-1)
        return _linear(self.out, (weight @ v).transpose(1, 2).reshape(b, n, self.qkv), features)


def _linear(layer: nn.Linear, x: Tensor, outputs: int) -> Tensor:
    """A layer on the first features, to the first `outputs`."""
    return functional.linear(x, layer.weight[:outputs, : x.shape[-1]], layer.bias[:outputs])


def _positions(length: int, features: int, like: Tensor) -> Tensor:
    """(length, features) sines and cosines of wavelengths from 2 pi to 20,000 pi."""
    rate = torch.exp(torch.arange(0, features, 2, device=like.device) * (-math.log(10_000.0) / features))
    angle = torch.arange(length, device=like.device)[:, None] * rate
    return torch.cat([angle.sin(), angle.cos()], dim=1)[:, :features].to(like)
