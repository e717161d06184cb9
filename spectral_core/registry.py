"""A registry: names to component configs, each with the package that provides it.

Lookup and construction are separate: ``registry.get(name).load()`` returns the config class and the caller builds it,
so an error in a component's constructor is never mistaken for an unknown name.
"""

from __future__ import annotations

import fnmatch
import importlib
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from spectral_core.config import PartConfig
from spectral_core.discovery import announced
from spectral_core.errors import DuplicateComponentError, PluginError, UnknownComponentError, shown, suggestion

T = TypeVar("T", bound=PartConfig)


@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    """One registered component: its config class (or ``"module:Class"``, imported on first use) and its provider."""

    kind: str
    name: str
    summary: str
    target: type[T] | str
    provider: str
    version: str
    base: type[T]

    def load(self) -> type[T]:
        """The config class. Raises PluginError if it cannot be imported, or does not fit its registration."""
        who = f"{self.kind} {self.name!r} of {self.provider} {self.version}"
        target = self.target
        if isinstance(target, str):
            module, _, attribute = target.partition(":")
            try:
                ours = "/" not in self.name
                with nullcontext() if ours else announced(f"importing {who} from {self.target!r}"):
                    target = getattr(importlib.import_module(module), attribute)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                raise PluginError(
                    f"{who} could not be imported from {self.target!r}: {type(error).__name__}: {error}. "
                    f"Reinstall or update {self.provider}."
                ) from error
        if not (isinstance(target, type) and issubclass(target, self.base)):
            raise PluginError(f"{who} is {target!r}, not a subclass of {self.base.__name__}.")
        declared = target.model_fields["type"].default
        if declared != self.name:
            raise PluginError(
                f"{who}: its config class {target.__name__} declares type {declared!r}. "
                f'Write  type: Literal["{self.name}"] = "{self.name}".'
            )
        return target


class Registry(Generic[T]):
    """Components of one kind by name, filled by the plugin host on first use.

    kind: the kind of component as users write it (``gate``). base: base class of their configs. populate: fills this
    registry; called before each read. failures: a sentence for each plugin that failed. label: the kind in messages.
    """

    def __init__(
        self,
        kind: str,
        base: type[T],
        *,
        populate: Callable[[], None],
        failures: Callable[[], list[str]],
        label: str | None = None,
    ) -> None:
        self.kind = kind
        self.label = label or kind
        self.base = base
        self._populate = populate
        self._failures = failures
        self._entries: dict[str, Entry[T]] = {}

    def add(self, entry: Entry[T]) -> None:
        """Store an entry. Raises DuplicateComponentError naming both providers."""
        self.check_free(entry)
        self._entries[entry.name] = entry

    def check_free(self, entry: Entry[T]) -> None:
        other = self._entries.get(entry.name)
        if other is not None:
            raise DuplicateComponentError(
                f"{self.kind} {entry.name!r} is registered twice: by {other.provider} {other.version} "
                f"and by {entry.provider} {entry.version}. Uninstall one, or rename the part."
            )

    def get(self, name: str) -> Entry[T]:
        """The entry of that name. Raises UnknownComponentError with the nearest and all known names."""
        self._populate()
        entry = self._entries.get(name)
        if entry is None:
            message = f"no {self.label} is called {shown(name)}.{suggestion(name, self._entries)}"
            message += f" Known: {', '.join(sorted(self._entries)) or 'none'}."
            for line in self._failures():
                message += f" {line}"
            raise UnknownComponentError(message)
        return entry

    def drop(self, pattern: str) -> None:
        """Remove the entries whose names match."""
        for name in fnmatch.filter(self._entries, pattern):
            del self._entries[name]

    def names(self, pattern: str = "*") -> list[str]:
        """Registered names that match a shell-style pattern, sorted."""
        self._populate()
        return sorted(fnmatch.filter(self._entries, pattern))

    def configs(self) -> dict[str, type[T]]:
        """Config classes by name, of all parts that can be imported."""
        found = {}
        for entry in self:
            with suppress(PluginError):
                found[entry.name] = entry.load()
        return found

    def __iter__(self) -> Iterator[Entry[T]]:
        return (self.get(name) for name in self.names())

    def __contains__(self, name: object) -> bool:
        self._populate()
        return name in self._entries

    def __len__(self) -> int:
        return len(self.names())

    def __repr__(self) -> str:
        return f"Registry({self.kind!r}: {', '.join(self.names())})"
