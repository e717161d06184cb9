"""The errors users meet. Each says what came in, what is allowed and what to do.

What a user did wrong is a ``ValueError``; what we broke is an ``assert``.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable

_LONGEST = 6000
"""Characters of a message; configs and files of strangers can make it of any length."""


class SpectralError(Exception):
    """Base of every error this framework raises on purpose. Its message is short and holds no control characters."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(_message(arg) if isinstance(arg, str) else arg for arg in args))


class ConfigError(SpectralError, ValueError):
    """A config that cannot work; the message carries the path of each offending value."""


class UnknownComponentError(ConfigError):
    """A name no registry entry has."""


class DuplicateComponentError(SpectralError, ValueError):
    """Two providers registered the same name."""


class PluginError(SpectralError, RuntimeError):
    """A plugin that could not be imported, registered or used."""


class UnsupportedInputError(SpectralError, ValueError):
    """Input an operator, backend or layer cannot serve."""


class StateError(SpectralError, ValueError):
    """A decoding state used where it does not fit: consumed, of another part, rewound too far."""


def suggestion(word: str, known: Iterable[str]) -> str:
    """``" Did you mean 'x'?"`` for the nearest known word, or an empty string."""
    if len(word) > 100:
        return ""
    nearest = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return f" Did you mean {nearest[0]!r}?" if nearest else ""


def shown(value: object) -> str:
    """A value for an error's message, as repr writes it, and shortened."""
    text = _REPR.repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."


def printable(text: str) -> str:
    """The text with everything that a terminal may obey, all but line breaks, as escapes."""
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
    """Short for any value, also where repr itself raises."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 3, 80, 80

    def repr_int(self, x: int, level: int) -> str:
        return f"an integer of {x.bit_length()} bits" if x.bit_length() > 256 else repr(x)


_REPR = _Repr()
