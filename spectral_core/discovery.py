"""Entry points of installed distributions, read one by one, so that a damaged file does not hide other plugins.

``importlib.metadata.entry_points`` reads the files of all installed packages and raises at the first damaged one, and
torch, triton, pydantic and fsspec call it on import. If there is a damaged file, this module makes it count as empty in
this process, and the plugin host reports it. Therefore this module is imported first, and imports only the standard
library. Reading all files takes some ten milliseconds.
"""

from __future__ import annotations

import importlib.metadata
import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

PATIENCE = 10.0
"""Seconds that a plugin may take to be imported or to register its parts before a warning says so."""

_log = logging.getLogger(__name__)
_read: Callable[[importlib.metadata.Distribution], importlib.metadata.EntryPoints] = (
    importlib.metadata.Distribution.entry_points.fget  # type: ignore[attr-defined]
)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A distribution whose entry points cannot be read, and why."""

    distribution: str
    reason: str


def installed(group: str) -> tuple[list[importlib.metadata.EntryPoint], list[Unreadable]]:
    """The entry points of a group, and the unreadable distributions. The first distribution of a name counts."""
    found: list[importlib.metadata.EntryPoint] = []
    damaged = []
    seen = set()
    for distribution in importlib.metadata.distributions():
        name = name_of(distribution)
        if name is not None:
            normalised = re.sub(r"[-_.]+", "-", name).lower()
            if normalised in seen:
                continue
            seen.add(normalised)
        try:
            found.extend(_read(distribution).select(group=group))
        except Exception as error:
            place = getattr(distribution, "_path", None)  # damaged metadata may lack a name
            damaged.append(
                Unreadable(
                    name or str(place),
                    f"its entry_points.txt cannot be read ({type(error).__name__}: {error}); reinstall it"
                    + (f", or delete {place}" if place else ""),
                )
            )
    return found, damaged


def name_of(distribution: importlib.metadata.Distribution) -> str | None:
    """The distribution's name; None if its metadata is damaged."""
    try:
        return distribution.name
    except Exception:
        return None


@contextmanager
def announced(what: str) -> Iterator[None]:
    """Log at INFO what is about to run, and warn if it still runs after ten seconds.

    If the code ends the process, this line is the only trace; ``spectral doctor`` and ``-v`` show it.
    """
    _log.info("%s", what)
    late = threading.Timer(
        PATIENCE,
        _log.warning,
        (
            "still %s after %g s. SPECTRAL_DISABLE_PLUGINS=1 loads no plugin, SPECTRAL_PLUGINS=a,b only these.",
            what,
            PATIENCE,
        ),
    )
    late.daemon = True
    late.start()
    try:
        yield
    finally:
        late.cancel()


def _read_or_none(distribution: importlib.metadata.Distribution) -> importlib.metadata.EntryPoints:
    try:
        return _read(distribution)
    except Exception:
        return importlib.metadata.EntryPoints(())


if installed(group="")[1]:
    importlib.metadata.Distribution.entry_points = property(_read_or_none)  # type: ignore[method-assign,assignment]
