"""The errors users meet. Each says what came in, what is allowed and what to do.

What a user did wrong is a ``ValueError``; what we broke is an ``assert``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SpectralError(Exception):
    """Base of every error this framework raises on purpose."""


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
    nearest = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return f" Did you mean {nearest[0]!r}?" if nearest else ""
