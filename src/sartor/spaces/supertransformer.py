"""SuperTransformer: the WMT English-German space of HAT, as MathNAS searches it.

H. Wang et al., "HAT: Hardware-Aware Transformers for Efficient Natural Language Processing", ACL 2020, space 0;
MathNAS, appendix C.1, Table 4 (ALGORITHMS 7.4). Six encoder layers of 6 candidates, one to six decoder layers of 36,
numbered as in the code of MathNAS.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from sartor.core import Json, Optimiser, Part, SearchSpace, Slot
from sartor.core.errors import UserError
from sartor.spaces.options import check_ranges, widened

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sartor.core.task import Supernet
    from sartor.layers.translator import Sizes

LAYERS = 6
EMBEDS, FFN, HEADS, ATTENDED = (512, 640), (1024, 2048, 3072), (4, 8), (1, 2, 3)
QKV = 512
ENCODER = tuple((ffn, heads) for ffn, heads in product(FFN, HEADS))
DECODER = tuple((ffn, own, cross, last) for last, cross, own, ffn in product(ATTENDED, HEADS, HEADS, FFN))


class SuperTransformer(SearchSpace):
    """Slots: with `embeds` the features of encoder and decoder, six encoder layers, the depth, six decoder layers.

    source, target: sizes of the vocabularies; length: tokens of a sentence when networks are measured; embeds: whether
    features are searched among 512 and 640 (published: both ways), or 512; width: multiplier of all features, rounded
    to multiples of 8. An architecture has 6^6 x sum of 36^d, d from 1 to 6: 1.04 x 10^14, four times as many with
    `embeds`.
    """

    optimiser: Optimiser = "adamw"

    def __init__(
        self,
        *,
        source: int = 32768,
        target: int = 32768,
        length: int = 30,
        embeds: bool = False,
        width: float = 1.0,
        dropout: float = 0.1,
    ) -> None:
        self.source, self.target, self.length, self.embeds = source, target, length, embeds
        if not isinstance(embeds, bool):
            raise UserError(f"supertransformer option embeds={embeds!r} is neither true nor false; give one of them.")
        check_ranges(
            "supertransformer",
            ("source", source, 4, 10**6),
            ("target", target, 4, 10**6),
            ("length", length, 1, 10**4),
            ("width", width, 0.05, 20.0),
            ("dropout", dropout, 0.0, 0.95),
        )
        self.width, self.dropout = float(width), float(dropout)
        slots = [Slot(f"{side} embed", tuple(map(str, EMBEDS))) for side in (("encoder", "decoder") if embeds else ())]
        names = tuple(f"ffn{ffn} h{heads}" for ffn, heads in ENCODER)
        slots += [Slot(f"encoder{i + 1}", names, _features(ENCODER)) for i in range(LAYERS)]
        depth = len(slots)
        slots.append(Slot("decoder layers", tuple(str(i + 1) for i in range(LAYERS))))
        names = tuple("ffn{} h{} x{} last{}".format(*layer) for layer in DECODER)
        for i in range(LAYERS):
            when = (depth, frozenset(range(i, LAYERS))) if i else None
            slots.append(Slot(f"decoder{i + 1}", names, _features(DECODER), when))
        self.slots = tuple(slots)

    def spec(self) -> dict[str, Json]:
        return {
            "space": "supertransformer",
            "source": self.source,
            "target": self.target,
            "length": self.length,
            "embeds": self.embeds,
            "width": self.width,
            "dropout": self.dropout,
        }

    def scaled(self, width: float) -> SuperTransformer:
        return widened(self, width)

    def inputs(self, batch: int, arch: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        import torch

        shape = (batch, self.length)
        return torch.randint(1, self.source, shape), torch.randint(1, self.target, shape)

    def sizes(self, arch: Sequence[int]) -> Sizes:
        """What the layers of a network are, in features of this space's width."""
        from sartor.layers.translator import Sizes

        arch = self.canonical(arch)
        embed, rest = (arch[:2], arch[2:]) if self.embeds else ((0, 0), arch)
        encoder, depth, decoder = rest[:LAYERS], rest[LAYERS] + 1, rest[LAYERS + 1 :]
        return Sizes(
            self.wide(EMBEDS[embed[0]]),
            self.wide(EMBEDS[embed[1]]),
            tuple((self.wide(ENCODER[k][0]), ENCODER[k][1]) for k in encoder),
            tuple((self.wide(DECODER[k][0]), *DECODER[k][1:]) for k in decoder[:depth]),
        )

    def wide(self, features: int) -> int:
        """Published features, times the width of the space."""
        return max(8, round(features * self.width / 8) * 8)

    @property
    def counts_add_up(self) -> bool:
        return not self.embeds  # with them, every layer depends on two slots more

    def counted(self, arch: Sequence[int]) -> list[Part] | None:
        from sartor.layers.translator import EndsAlone, LayerAlone

        if self.embeds:
            return None
        sizes, n, e, qkv = self.sizes(arch), self.length, self.wide(EMBEDS[0]), self.wide(QKV)
        ends = (self.source, self.target, e, e)
        found = [Part(f"translator-ends-{ends}", None, partial(EndsAlone, *ends), ((n, e),))]
        for i, layer in enumerate(sizes.encoder):
            make = partial(LayerAlone, layer, embed=e, qkv=qkv)
            found.append(Part(f"translator-encoder-{layer}-{e}-{qkv}", i, make, ((n, e),)))
        for i, other in enumerate(sizes.decoder):
            make = partial(LayerAlone, other, embed=e, qkv=qkv, memory=e)
            key = f"translator-decoder-{other}-{e}-{qkv}"
            found.append(Part(key, LAYERS + 1 + i, make, ((n, e), (other[3] * n, e))))
        return found

    def network(self, arch: Sequence[int]) -> nn.Module:
        return self._build(self.sizes(arch))

    def _build(self, sizes: Sizes) -> nn.Module:
        from sartor.layers.translator import Translator

        qkv = self.wide(QKV)
        return Translator(sizes, source=self.source, target=self.target, qkv=qkv, dropout=self.dropout)

    def supernet(self) -> Supernet:
        from sartor.spaces.elastic import TranslatorSupernet

        embed = self.wide(max(EMBEDS) if self.embeds else EMBEDS[0])
        encoder, decoder = ((self.wide(max(FFN)), max(HEADS)),), ((self.wide(max(FFN)), max(HEADS), max(HEADS), 1),)
        from sartor.layers.translator import Sizes

        most: Any = self._build(Sizes(embed, embed, encoder * LAYERS, decoder * LAYERS))
        return TranslatorSupernet(self, most)


def _features(layers: Sequence[tuple[int, ...]]) -> Any:
    """Hidden features as a number with how far the middle is off the line, and the other choices as they are."""
    table = np.array(layers, dtype=float)
    columns = [table[:, 0] / max(FFN), table[:, 0] == FFN[1], table[:, 1] == HEADS[1]]
    if table.shape[1] == 4:
        columns += [table[:, 2] == HEADS[1], *(table[:, 3] == last for last in ATTENDED[1:]), np.ones(len(table))]
    return np.column_stack(columns).astype(float)
