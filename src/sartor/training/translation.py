"""Machine translation as a task: label-smoothed cross-entropy to train, BLEU of greedy translations to judge."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sartor.core.errors import UserError, unknown
from sartor.core.task import Batch, Split
from sartor.core.units import METRICS
from sartor.data.tensors import stream
from sartor.data.text import BEGIN, END, PAD, Pairs, TextSet
from sartor.data.vision import whole

_EVALUATION_BATCH = 128
_LONGER, _MORE = 1.5, 10  # tokens of a translation at most, by those of its source: of 30,000 pairs two have more


class Translation:
    """Translation of sentences: BLEU by sacrebleu on plain text, 0 to 100.

    data: pairs of sentences, on its device; label_smoothing: of the training loss, 0 to 1. `valid` and `test` are files
    of the data set. Networks take source (B, S) and target so far (B, T), int64 and 0 where padded, and give logits
    (B, T, vocabulary). Batches are ((source and END, BEGIN and target (B, T)), target and END (B, T)).
    """

    metric = METRICS["bleu"]

    def __init__(self, data: TextSet, *, label_smoothing: float = 0.1) -> None:
        if not 0 <= label_smoothing < 1:
            raise UserError(f"label_smoothing={label_smoothing} must be at least 0 and below 1; change it.")
        self.data, self.label_smoothing = data, label_smoothing
        self.device, self.vocabularies = data.device, data.vocabularies
        self._pairs = {"train": data.train, "valid": data.valid, "test": data.test}
        self._pairs["trainvalid"] = data.train.joined(data.valid)

    def describe(self) -> dict[str, Any]:
        """Name, sizes and content fingerprint of the data; no paths."""
        return {
            "task": "translation",
            "data": self.data.name,
            "content": self.data.content,
            "vocabularies": list(self.vocabularies),
            "examples": {split: self.length(split) for split in ("train", "valid", "test")},
            "label_smoothing": self.label_smoothing,
        }

    def smoothed(self, label_smoothing: float) -> Translation:
        """The same task with another label smoothing."""
        return Translation(self.data, label_smoothing=label_smoothing)

    def length(self, split: Split) -> int:
        """Number of pairs in a split."""
        return len(self._of(split))

    def batches(
        self, split: Split, *, size: int, seed: int, epoch: int, limit: int | None = None, plain: bool = False
    ) -> Iterable[Batch]:
        """Batches of one epoch.

        `train` and `trainvalid`: pairs of about one length together, which are others each epoch, in random order,
        without a ragged last batch (unless it is the only one). `valid` and `test`: complete, in one fixed random
        order whatever seed and epoch. limit: at most that many batches; plain: as of `valid`, of any split.
        """
        pairs, n, limit = self._of(split), self.length(split), None if limit is None else whole("limit", limit)
        groups: Sequence[Tensor]
        if split in ("train", "trainvalid") and not plain:
            generator = stream("batches", seed, split, epoch)
            order = torch.randperm(n, generator=generator)[: n // whole("size", size) * size or n]
            alike = torch.split(_by_length(pairs, order), size)
            groups = [alike[i] for i in torch.randperm(len(alike), generator=generator).tolist()]
        else:
            groups = torch.split(self._fixed(split), whole("size", size))
        return (_batch(pairs, group) for group in groups[:limit])

    def loss(self, net: Callable[..., Tensor], batch: Batch) -> Tensor:
        """Cross-entropy with label smoothing, mean over the tokens of the batch."""
        inputs, targets = batch
        return functional.cross_entropy(
            net(*inputs).float().flatten(0, 1),
            targets.flatten(),
            ignore_index=PAD,
            label_smoothing=self.label_smoothing,
        )

    def evaluate(self, net: Callable[..., Tensor], split: Split, *, limit: int | None = None) -> Mapping[str, float]:
        """`bleu` of greedy translations, and `loss` (cross-entropy of a token without smoothing) over a split.

        limit: at most that many batches of 128. A network that has `follow`, as `layers.translator` says, goes on from
        what it has computed; any other is run on all tokens so far. Computes no gradients; sets no mode.
        """
        sacrebleu = _sacrebleu()
        pairs, order = self._of(split), self._fixed(split)
        if limit is not None:
            order = order[: whole("limit", limit) * _EVALUATION_BATCH]
        order = _by_length(pairs, order)
        total, count, said = 0.0, 0, list[str]()
        with torch.no_grad():
            for group in torch.split(order, _EVALUATION_BATCH):
                (source, target), right = _batch(pairs, group)
                logits = net(source, target).float().flatten(0, 1)
                total += float(functional.cross_entropy(logits, right.flatten(), ignore_index=PAD, reduction="sum"))
                count += int((right != PAD).sum())
                said += self.data.written(_greedy(net, source))
        bleu = sacrebleu.corpus_bleu(said, [[pairs.text[i] for i in order.tolist()]], force=True)
        return {"bleu": float(bleu.score), "loss": total / count}

    def _of(self, split: Split) -> Pairs:
        if split not in self._pairs:
            raise unknown("split", split, self._pairs)
        return self._pairs[split]

    def _fixed(self, split: Split) -> Tensor:
        """A fixed random order: a limited split tells about the whole."""
        return torch.randperm(self.length(split), generator=stream("order", split))


def _greedy(net: Callable[..., Tensor], source: Tensor) -> Tensor:
    """The likeliest token after those so far, until END everywhere: (B, T), PAD behind END."""
    follow: Callable[[Tensor], Callable[[Tensor], Tensor]] | None = getattr(net, "follow", None)
    logits = (lambda so_far: net(source, so_far)[:, -1]) if follow is None else follow(source)
    so_far, done = torch.full_like(source[:, :1], BEGIN), torch.zeros_like(source[:, 0], dtype=torch.bool)
    for _ in range(int(_LONGER * source.shape[1]) + _MORE):
        token = logits(so_far).argmax(dim=1).masked_fill(done, PAD)
        so_far, done = torch.cat([so_far, token[:, None]], dim=1), done | (token == END)
        if done.all():
            break
    return so_far[:, 1:]


def _batch(pairs: Pairs, index: Tensor) -> Batch:
    """These pairs, cut to the longest."""
    source, target = (_cut(side[index.to(side.device)]) for side in (pairs.source, pairs.target))
    return (source, target[:, :-1]), target[:, 1:]


def _cut(tokens: Tensor) -> Tensor:
    return tokens[:, : int((tokens != PAD).sum(dim=1).max())]


def _by_length(pairs: Pairs, index: Tensor) -> Tensor:
    """The same places, short pairs first; those of one length stay in order.

    In batches of 64 of Multi30k 3 % are padding; by the sum of both lengths it is 16 %.
    """
    source, target = pairs.lengths()[index].unbind(dim=1)
    return index[(target // 2 * (source.max() + 1) + source).argsort(stable=True)]


def _sacrebleu() -> Any:
    try:
        import sacrebleu
    except ImportError:
        raise UserError("BLEU needs the packages sacrebleu and tokenizers; pip install sartor[text].") from None
    return sacrebleu
