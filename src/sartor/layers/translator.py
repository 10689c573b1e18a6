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

from sartor.data.text import PAD

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


_Kept: TypeAlias = dict[str, tuple[Tensor, Tensor]]
"""Keys and values of a decoder layer: its own so far, and those of what it attends to."""
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
        memory, steps = self._encode(source, sizes, step), target.shape[1]
        later = torch.ones(steps, steps, dtype=torch.bool, device=target.device).triu(1)
        y = self._embed(self.target, target, sizes.decoder_embed)
        for i, (layer, (ffn, own, cross, _), seen) in enumerate(zip(self.decoder, sizes.decoder, memory)):
            y = step(len(sizes.encoder) + i, y, partial(layer, hidden=later, ffn=ffn, heads=own, cross=cross, **seen))
        return functional.linear(y, self.target.weight[:, : sizes.decoder_embed])

    def follow(self, source: Tensor) -> Callable[[Tensor], Tensor]:
        """From the tokens so far (B, T), with every call one more, to logits (B, vocabulary) of the next.

        The same as the last ones of the whole network, but keys and values are computed once.
        """
        memory, now = self._encode(source, self.sizes, _plainly), torch.zeros(1, 1, dtype=torch.bool).to(source.device)
        kept: list[_Kept] = [{} for _ in self.sizes.decoder]

        def following(target: Tensor) -> Tensor:
            y = self._embed(self.target, target, self.sizes.decoder_embed, first=target.shape[1] - 1)
            for layer, (ffn, own, cross, _), seen, mine in zip(self.decoder, self.sizes.decoder, memory, kept):
                y = layer(y, hidden=now, ffn=ffn, heads=own, cross=cross, **seen, kept=mine)
            return functional.linear(y[:, 0], self.target.weight)

        return following

    def _encode(self, source: Tensor, sizes: Sizes, step: Step) -> list[dict[str, Tensor]]:
        """What each layer of the decoder attends to."""
        hidden = (source == PAD)[:, None, None, :]
        x, outputs = self._embed(self.source, source, sizes.encoder_embed), []
        for i, (layer, (ffn, heads)) in enumerate(zip(self.encoder, sizes.encoder)):
            x = step(i, x, partial(layer, hidden=hidden, ffn=ffn, heads=heads))
            outputs.append(x)
        return [
            {"memory": torch.cat(outputs[-last:], dim=1), "covered": hidden.repeat(1, 1, 1, last)}
            for *_, last in sizes.decoder
        ]

    def _embed(self, table: nn.Embedding, tokens: Tensor, features: int, first: int = 0) -> Tensor:
        """Tokens from the first on, where they stand."""
        x = functional.embedding(tokens[:, first:], table.weight[:, :features], PAD) * math.sqrt(features)
        out: Tensor = self.drop(x + _positions(tokens.shape[1], features, x)[first:])
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
        kept: _Kept | None = None,
    ) -> Tensor:
        """kept: keys and values of the calls before, to which those of `x` are added."""
        own = self.attention.look(x, heads)
        if kept is not None:
            own = kept["own"] = _joined(kept["own"], own) if kept else own
        x = self._norm(0, x + self.drop(self.attention(x, own, hidden)))
        if self.cross is not None and memory is not None:
            other = kept["other"] if kept and "other" in kept else self.cross.look(memory, cross)
            if kept is not None:
                kept["other"] = other
            x = self._norm(-2, x + self.drop(self.cross(x, other, covered)))
        inner = functional.relu(_linear(self.first, x, ffn))
        return self._norm(-1, x + self.drop(_linear(self.second, inner, x.shape[-1])))

    def _norm(self, i: int, x: Tensor) -> Tensor:
        norm, n = self.norms[i], x.shape[-1]
        return functional.layer_norm(x, (n,), norm.weight[:n], norm.bias[:n], norm.eps)  # type: ignore[index, arg-type]


class LayerAlone(nn.Module):
    """A layer as it costs in a network: from (B, T, embed) and, in a decoder, what it attends to (B, M, memory)."""

    def __init__(self, layer: Encoder | Decoder, *, embed: int, qkv: int, memory: int | None = None) -> None:
        super().__init__()
        self.sizes, self.layer = layer, _Layer(embed, qkv, layer[0], 0.0, memory)

    def forward(self, x: Tensor, *memory: Tensor) -> Tensor:
        all_may = torch.zeros(1, 1, dtype=torch.bool, device=x.device)
        seen = {"memory": memory[0], "covered": all_may, "cross": self.sizes[2]} if len(self.sizes) == 4 else {}
        out: Tensor = self.layer(x, hidden=all_may, ffn=self.sizes[0], heads=self.sizes[1], **seen)
        return out


class EndsAlone(nn.Module):
    """What a translator has besides its layers: both embeddings, and the output layer on (B, T, features)."""

    def __init__(self, source: int, target: int, encoder_embed: int, decoder_embed: int) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(source, encoder_embed), nn.Embedding(target, decoder_embed)

    def forward(self, y: Tensor) -> Tensor:
        return functional.linear(y, self.target.weight)


class _Attention(nn.Module):
    """Scaled products of queries with keys of a memory (B, M, features)."""

    def __init__(self, embed: int, memory: int, qkv: int) -> None:
        super().__init__()
        self.qkv = qkv
        self.query, self.key, self.value = nn.Linear(embed, qkv), nn.Linear(memory, qkv), nn.Linear(memory, qkv)
        self.out = nn.Linear(qkv, embed)

    def look(self, memory: Tensor, heads: int) -> tuple[Tensor, Tensor]:
        """Keys and values, (B, heads, M, features of a head) each."""
        return self._split(self.key, memory, heads), self._split(self.value, memory, heads)

    def forward(self, x: Tensor, memory: tuple[Tensor, Tensor], hidden: Tensor) -> Tensor:
        """memory: as `look` gives it; `hidden` is true where none may look."""
        b, n, features = x.shape
        k, v = memory
        q = self._split(self.query, x, k.shape[1])
        weight = (q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])).masked_fill(hidden, -torch.inf).softmax(dim=-1)
        return _linear(self.out, (weight @ v).transpose(1, 2).reshape(b, n, self.qkv), features)

    def _split(self, layer: nn.Linear, of: Tensor, heads: int) -> Tensor:
        return _linear(layer, of, self.qkv).reshape(len(of), of.shape[1], heads, -1).transpose(1, 2)


def _joined(before: tuple[Tensor, Tensor], now: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return torch.cat([before[0], now[0]], dim=2), torch.cat([before[1], now[1]], dim=2)


def _linear(layer: nn.Linear, x: Tensor, outputs: int) -> Tensor:
    """A layer on the first features, to the first `outputs`."""
    return functional.linear(x, layer.weight[:outputs, : x.shape[-1]], layer.bias[:outputs])


def _positions(length: int, features: int, like: Tensor) -> Tensor:
    """(length, features) sines and cosines of wavelengths from 2 pi to 20,000 pi."""
    rate = torch.exp(torch.arange(0, features, 2, device=like.device) * (-math.log(10_000.0) / features))
    angle = torch.arange(length, device=like.device)[:, None] * rate
    return torch.cat([angle.sin(), angle.cos()], dim=1)[:, :features].to(like)
