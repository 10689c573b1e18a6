"""Plain names for plain data."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

Architecture: TypeAlias = tuple[int, ...]
"""A candidate index per slot; canonical form: inactive slots hold 0."""
Json: TypeAlias = Any
"""What `json` reads and writes."""
Optimiser: TypeAlias = Literal["sgd", "adamw"]
"""What weights are trained by."""
