"""What spaces with options share: ranges, the same space at another width, pixels after a stride."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias, TypeVar

from sartor.core import SearchSpace, UserError

S = TypeVar("S", bound=SearchSpace)
Row: TypeAlias = tuple[int, int, int, int]
"""A layer's input channels, output channels, stride, and pixels of an edge of its input."""


def check_ranges(space: str, *options: tuple[str, object, float, float]) -> None:
    """Raise UserError for the first option (name, value, lowest, highest) out of range.

    Where the lowest is a whole number, the value has to be one.
    """
    for name, value, low, high in options:
        whole = isinstance(low, int)
        right = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if not right or not low <= value <= high:  # type: ignore[operator]  # a number by now
            kind = "a whole number from " if whole else ""
            raise UserError(f"{space} option {name}={value!r} is out of range; give {kind}{low} to {high}.")


def widened(space: S, width: float) -> S:
    """The space with its option `width` that many times as large, and all else as it is."""
    options = {k: v for k, v in space.spec().items() if k != "space"}
    return type(space)(**{**options, "width": options["width"] * width})


def halve(pixels: int, stride: int) -> int:
    """Pixels of an edge after a convolution with `same` padding."""
    return -(-pixels // stride)


def layer_rows(inputs: int, stages: Iterable[tuple[int, int, int]], pixels: int) -> tuple[Row, ...]:
    """The layers of stages (channels, layers, stride of the first), behind `inputs` channels of that many pixels."""
    rows = []
    for outputs, layers, first_stride in stages:
        for layer in range(layers):
            stride = first_stride if layer == 0 else 1
            rows.append((inputs, outputs, stride, pixels))
            inputs, pixels = outputs, halve(pixels, stride)
    return tuple(rows)
