"""Errors for users. Each says what came in, what is allowed and what to do.

Mistakes of users raise a ``ValueError``; violated invariants of ours fail an ``assert``.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable

_LONGEST = 6000
"""Characters of a message, which quotes configs and files of any length."""


class SpectralError(Exception):
    """Base of every error this framework raises on purpose. Its message is short and holds no control characters."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(_message(arg) if isinstance(arg, str) else arg for arg in args))


class ConfigError(SpectralError, ValueError):
    """A config that cannot work; the message has the path of each offending value."""


class UnknownComponentError(ConfigError):
    """A name that is not in the registry."""


class DuplicateComponentError(SpectralError, ValueError):
    """Two providers registered the same name."""


class PluginError(SpectralError, RuntimeError):
    """A plugin that could not be imported, registered or used."""


class UnsupportedInputError(SpectralError, ValueError):
    """Input that an operator, backend or layer does not support."""


class StateError(SpectralError, ValueError):
    """A decoding state that cannot be used: consumed before, from another part, or rewound too far."""


def suggestion(word: str, known: Iterable[str]) -> str:
    """``" Did you mean 'x'?"`` for the nearest known word, or an empty string."""
    if len(word) > 100:
        return ""
    nearest = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return f" Did you mean {nearest[0]!r}?" if nearest else ""


def shown(value: object) -> str:
    """A shortened repr of a value, for error messages."""
    text = _REPR.repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."


def printable(text: str) -> str:
    """The text with unprintable characters as escapes, so that a terminal obeys none; line breaks stay."""
    if text.replace("\n", " ").isprintable():
        return text
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode() for char in text
    )


def _message(text: str) -> str:
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}... and {len(text) - _LONGEST:,} more characters"
    return printable(text)


class _Repr(reprlib.Repr):
    """A short repr of any value, also of one whose own repr raises."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 3, 80, 80

    def repr_int(self, x: int, level: int) -> str:
        return f"an integer of {x.bit_length()} bits" if x.bit_length() > 256 else repr(x)


_REPR = _Repr()
