"""Pairs of sentences in two languages, as subwords: read, cut up and fingerprinted once."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from sartor.core.errors import UserError
from sartor.data.small import existing
from sartor.data.tensors import on_device
from sartor.data.vision import whole

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAD, BEGIN, END, UNKNOWN = range(4)
_SPECIAL = ["[PAD]", "[BEGIN]", "[END]", "[UNKNOWN]"]  # their places are their tokens
_CPU = torch.device("cpu")
_PARTS = ("train", "val", "test_2016_flickr")


@dataclass(frozen=True)
class Pairs:
    """Examples: source (N, S), tokens and END; target (N, T), BEGIN, tokens and END; int64, PAD behind.

    text: targets as written.
    """

    source: Tensor
    target: Tensor
    text: Sequence[str]

    def __len__(self) -> int:
        return len(self.text)

    def lengths(self) -> Tensor:
        """Tokens of source and target (N, 2), on the CPU."""
        return torch.stack([(side != PAD).sum(dim=1) for side in (self.source, self.target)], dim=1).cpu()

    def joined(self, other: Pairs) -> Pairs:
        """Both, one after the other."""
        sides = zip((self.source, self.target), (other.source, other.target))
        source, target = (pad_sequence([*a, *b], batch_first=True, padding_value=PAD) for a, b in sides)
        return Pairs(source, target, [*self.text, *other.text])

    def to(self, device: torch.device) -> Pairs:
        return replace(self, source=self.source.to(device), target=self.target.to(device))


@dataclass(frozen=True)
class TextSet:
    """Training, validation and test pairs of one translation data set.

    name: for people; vocabularies: number of source and of target tokens; words: turns target tokens into text;
    content: fingerprint of text and tokens; device: where the pairs are.
    """

    name: str
    train: Pairs
    valid: Pairs
    test: Pairs
    vocabularies: tuple[int, int]
    words: Tokenizer
    content: str
    device: torch.device = _CPU

    def to(self, device: torch.device | str) -> TextSet:
        """The same data set with its tokens on `device`. Raises UserError when there is no such device."""
        there = on_device(device)
        train, valid, test = (part.to(there) for part in (self.train, self.valid, self.test))
        return replace(self, train=train, valid=valid, test=test, device=there)

    def written(self, target: Tensor) -> list[str]:
        """Target tokens (N, T) as text, without the special ones."""
        texts: list[str] = self.words.decode_batch(target.tolist())
        return texts


def multi30k(path: str, *, languages: str = "en-de", vocabulary: int = 4000, length: int = 50) -> TextSet:
    """Captions of pictures in two languages (D. Elliott et al., "Multi30K", VL 2016), from a folder with gzipped text.

    The files are {train,val,test_2016_flickr}.LANGUAGE.gz, one sentence a line. languages: from-to; vocabulary:
    subwords of each language, the special ones among them: byte-pair encoding, learned from the training text alone;
    length: training pairs are left out where either side has more subwords, END counted.
    Raises UserError for files that are missing, unreadable or of unequal length, and for options out of range.
    """
    folder = existing(path, "multi30k")
    whole("vocabulary", vocabulary, 8)
    whole("length", length, 2)
    names = str(languages).split("-")
    if len(names) != 2 or not all(names):
        raise UserError(f"option languages={languages} is not possible; write it like languages=en-de.")
    text = [{part: _lines(folder / f"{part}.{name}.gz", str(languages)) for part in _PARTS} for name in names]
    for part in _PARTS:
        counts = [len(side[part]) for side in text]
        if counts[0] != counts[1] or not counts[0]:
            said = " and ".join(f"{count} {name}" for count, name in zip(counts, names))
            raise UserError(f"{folder}: {part} has {said} lines; restore the files.")
    coders = [_learned(name, side["train"], vocabulary) for name, side in zip(names, text)]
    train, valid, test = (_pairs([side[part] for side in text], coders) for part in _PARTS)
    short = ((train.source != PAD).sum(1) <= length) & ((train.target[:, 1:] != PAD).sum(1) <= length)
    kept = short.nonzero()[:, 0]
    if not len(kept):
        raise UserError(f"{folder.name}: no training pair has at most length={length} subwords; raise it.")
    train = Pairs(train.source[kept], train.target[kept], [train.text[i] for i in kept.tolist()])
    digest = hashlib.sha256(f"{length}".encode())
    for side, coder in zip(text, coders):
        digest.update("\n".join(line for part in _PARTS for line in side[part]).encode())
        digest.update(coder.to_str().encode())
    sizes = (coders[0].get_vocab_size(), coders[1].get_vocab_size())
    return TextSet(f"Multi30k {languages}", train, valid, test, sizes, coders[1], digest.hexdigest()[:16])


def _lines(file: Path, languages: str) -> list[str]:
    if not file.is_file():
        needed = ", ".join(f"{part}.*.gz" for part in _PARTS)
        raise UserError(f"there is no file {file}; multi30k with languages={languages} needs {needed} of both.")
    try:
        with gzip.open(file, "rt", encoding="utf-8") as stream:
            return [line.strip() for line in stream]
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise UserError(f"{file} is not readable gzipped UTF-8 text ({error}); restore it.") from None


def _learned(language: str, lines: Sequence[str], vocabulary: int) -> Tokenizer:
    """Subwords that the lines are made of; spaces are part of them, so that text comes back as it was."""
    try:
        from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    except ImportError:
        raise UserError("text needs the packages tokenizers and sacrebleu; pip install sartor[text].") from None

    coder = Tokenizer(models.BPE(unk_token=_SPECIAL[UNKNOWN]))
    made: Any = coder
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
    made.decoder = decoders.Metaspace()
    coder.train_from_iterator(
        lines, trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=_SPECIAL, show_progress=False)
    )
    if coder.get_vocab_size() > vocabulary:
        raise UserError(
            f"option vocabulary={vocabulary} is too small: {language} has {coder.get_vocab_size()} characters and "
            "special tokens; give more."
        )
    return coder


def _pairs(text: Sequence[list[str]], coders: Sequence[Tokenizer]) -> Pairs:
    source, target = ([row.ids for row in coder.encode_batch(side)] for coder, side in zip(coders, text))
    return Pairs(_padded([[*row, END] for row in source]), _padded([[BEGIN, *row, END] for row in target]), text[1])


def _padded(rows: list[list[int]]) -> Tensor:
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=PAD)
