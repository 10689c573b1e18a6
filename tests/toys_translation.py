"""A small language pair, written as Multi30k is: what translates word by word, and agrees in gender."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

from torch import Tensor, nn

_NOUNS = {"dog": ("Hund", 0), "cat": ("Katze", 1), "horse": ("Pferd", 2), "bird": ("Vogel", 0), "cow": ("Kuh", 1)}
_ADJECTIVES = {"big": "groß", "small": "klein", "old": "alt", "white": "weiß", "young": "jung"}
_VERBS = {"runs": "rennt", "sleeps": "schläft", "jumps": "springt", "waits": "wartet"}
_ENDINGS, _ARTICLES = ("er", "e", "es"), ("Ein", "Eine", "Ein")


class Bag(nn.Module):
    """(B, S), (B, T) -> (B, T, vocabulary), from the token before and all of the source."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(vocabulary, 16), nn.Embedding(vocabulary, 16)
        self.out = nn.Linear(16, vocabulary)

    def forward(self, source: Tensor, so_far: Tensor) -> Tensor:
        logits: Tensor = self.out(self.source(source).mean(dim=1, keepdim=True) + self.target(so_far))
        return logits


def write_pairs(folder: Path, *, train: int = 120, held: int = 33) -> Path:
    """{train,val,test_2016_flickr}.{en,de}.gz with so many lines. One training line in ten is twice as long."""
    draw = random.Random(0)
    for part, count in (("train", train), ("val", held), ("test_2016_flickr", held)):
        pairs = [_pair(draw, two=i % 10 == 9) for i in range(count)]
        for column, language in enumerate(("en", "de")):
            write_lines(folder / f"{part}.{language}.gz", [pair[column] for pair in pairs])
    return folder


def write_lines(file: Path, lines: list[str]) -> None:
    file.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))


def _pair(draw: random.Random, two: bool) -> tuple[str, str]:
    english, german = _clause(draw)
    if two:
        other = _clause(draw)
        english, german = f"{english} and {other[0].lower()}", f"{german} und {other[1][0].lower()}{other[1][1:]}"
    return f"{english}.", f"{german}."


def _clause(draw: random.Random) -> tuple[str, str]:
    noun, adjective, verb = (draw.choice(sorted(words)) for words in (_NOUNS, _ADJECTIVES, _VERBS))
    word, gender = _NOUNS[noun]
    said = f"{_ARTICLES[gender]} {_ADJECTIVES[adjective]}{_ENDINGS[gender]} {word} {_VERBS[verb]}"
    return f"A {adjective} {noun} {verb}", said
