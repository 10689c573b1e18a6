"""Names to things, looked up lazily so that a name costs no import until it is used."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qsl

from sartor.core.errors import UserError, unknown

T = TypeVar("T")


class Registry(Generic[T]):
    """Constructors by name. An entry is a callable, or `"module:attribute"` that is imported on first use.

    plugins: group of entry points in which installed packages offer more of them.
    """

    def __init__(self, kind: str, entries: dict[str, str | Callable[..., T]], plugins: str | None = None) -> None:
        self.kind, self._plugins = kind, plugins
        self._entries = dict(entries)

    def __iter__(self) -> Iterator[str]:
        self._discover()
        return iter(sorted(self._entries))

    def __contains__(self, name: str) -> bool:
        if name not in self._entries:
            self._discover()
        return name in self._entries

    def _discover(self) -> None:
        """Look once at what is installed; that takes longer than a name that is known should."""
        if self._plugins is not None:
            from importlib.metadata import entry_points

            for point in entry_points(group=self._plugins):
                self._entries.setdefault(point.name, point.value)
            self._plugins = None

    def register(self, name: str, make: Callable[..., T]) -> None:
        """Add a constructor. Raises ValueError when the name is taken by another one."""
        if name in self._entries and self._entries[name] is not make:
            raise ValueError(f"{self.kind} {name!r} is registered already")
        self._entries[name] = make

    def __getitem__(self, name: str) -> Callable[..., T]:
        if name not in self:
            raise unknown(self.kind, name, self._entries)
        entry = self._entries[name]
        if isinstance(entry, str):
            module, attribute = entry.split(":")
            entry = self._entries[name] = getattr(importlib.import_module(module), attribute)
        return entry

    def make(self, name: str, /, *args: Any, **options: Any) -> T:
        """Construct with options checked against the constructor's own signature and types of defaults."""
        make = self[name]
        parameters = inspect.signature(make).parameters
        for key in options:
            if key not in parameters:
                raise unknown(f"option of {self.kind} {name!r}:", key, parameters)
        for key, parameter in list(parameters.items())[len(args) :]:
            named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            if named and key not in options and parameter.default is parameter.empty:
                raise UserError(f"{self.kind} {name!r} needs {key}; write {name}?{key}=...")
        return make(*args, **options)


def parse_reference(text: str) -> tuple[str, str | None, dict[str, Any]]:
    """Split `NAME[:REST][?key=value&...]` into name, rest and options.

    Option values become int, float, bool or None where they read as such, otherwise text.
    """
    head, _, query = text.partition("?")
    name, _, rest = head.partition(":")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError:
        raise UserError(f"cannot read the options of {text!r}; write NAME?key=value&key=value.") from None
    return name, rest or None, {key: _value(value) for key, value in pairs}


def _value(text: str) -> Any:
    words: dict[str, Any] = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
