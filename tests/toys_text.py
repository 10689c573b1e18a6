"""A text task: predict the next token of random sequences that follow a noisy rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sartor.core import METRICS, Batch, Split
from sartor.core.errors import unknown
from sartor.data.tensors import stream

VOCABULARY, LENGTH = 11, 6
_SIZES = {"train": 96, "valid": 40, "test": 50}


class NextToken:
    """Inputs: tokens (B, 6) and their positions (B, 6); targets: the next token of each (B, 6)."""

    metric = METRICS["loss"]
    device = torch.device("cpu")

    def __init__(self) -> None:
        self._text: dict[str, Tensor] = {}
        for split, n in _SIZES.items():
            generator = stream("next token", split)
            rows = [torch.randint(VOCABULARY, (n,), generator=generator)]
            for _ in range(LENGTH):
                rows.append((rows[-1] * 2 + torch.randint(2, (n,), generator=generator)) % VOCABULARY)
            self._text[split] = torch.stack(rows, 1)
        self._text["trainvalid"] = torch.cat((self._text["train"], self._text["valid"]))

    def describe(self) -> dict[str, Any]:
        return {"task": "next token", "vocabulary": VOCABULARY}

    def length(self, split: Split) -> int:
        return len(self._of(split))

    def batches(
        self, split: Split, *, size: int, seed: int, epoch: int, limit: int | None = None, plain: bool = False
    ) -> Iterable[Batch]:
        text = self._of(split)
        if split in ("train", "trainvalid") and not plain:
            order = torch.randperm(len(text), generator=stream("order", split, seed, epoch))
            text = text[order[: len(text) // size * size or len(text)]]
        for part in torch.split(text, size)[:limit]:
            yield (part[:, :-1], torch.arange(LENGTH).expand(len(part), LENGTH)), part[:, 1:]

    def loss(self, net: Callable[..., Tensor], batch: Batch) -> Tensor:
        inputs, targets = batch
        return functional.cross_entropy(net(*inputs).flatten(0, 1), targets.flatten())

    def evaluate(self, net: Callable[..., Tensor], split: Split, *, limit: int | None = None) -> Mapping[str, float]:
        total, count = 0.0, 0
        with torch.no_grad():
            for batch in self.batches(split, size=32, seed=0, epoch=0, limit=limit):
                total += float(self.loss(net, batch)) * len(batch[1])
                count += len(batch[1])
        return {"loss": total / count}

    def _of(self, split: str) -> Tensor:
        if split not in self._text:
            raise unknown("split", split, self._text)
        return self._text[split]


class Bigram(nn.Module):
    """Embeddings of token and position, a linear layer: (B, L), (B, L) -> (B, L, vocabulary)."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(VOCABULARY, 16), nn.Embedding(LENGTH, 16)
        self.drop, self.out = nn.Dropout(0.1), nn.Linear(16, VOCABULARY)

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        logits: Tensor = self.out(self.drop(self.token(tokens) + self.position(positions)))
        return logits
