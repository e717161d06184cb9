"""Entry points of installed distributions, read one by one: a damaged file of one must not hide the others' plugins.

``importlib.metadata.entry_points`` reads the files of all installed packages and raises at the first that is damaged,
and torch, triton, pydantic and fsspec call it when they are imported. So where there is such a file, and only there,
it counts as empty in this process; the plugin host reports it. This module is therefore the first to be imported, and
imports nothing but the standard library. Reading all files takes some ten milliseconds.
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
    """The entry points of a group, and the distributions that may have had some. The first of a name counts."""
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
            place = getattr(distribution, "_path", None)  # where it is: metadata alone may not say whose file it is
            damaged.append(
                Unreadable(
                    name or str(place),
                    f"its entry_points.txt cannot be read ({type(error).__name__}: {error}); reinstall it"
                    + (f", or delete {place}" if place else ""),
                )
            )
    return found, damaged


def name_of(distribution: importlib.metadata.Distribution) -> str | None:
    """Its name; None where its metadata is damaged."""
    try:
        return distribution.name
    except Exception:
        return None


@contextmanager
def announced(what: str) -> Iterator[None]:
    """Log what is about to run at INFO, and warn after ten seconds that it still does.

    Code that ends the process leaves no other trace: ``spectral doctor``, and any command with -v, shows these lines.
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
