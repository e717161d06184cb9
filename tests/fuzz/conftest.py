"""The fuzzing lane: seeded mutations of what users and strangers hand us, each held to an answer or one clear error.

``make test`` runs a fiftieth of each; ``make fuzz`` (``SPECTRAL_FUZZ=1``) runs all of it.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

SHARE = float(os.environ.get("SPECTRAL_FUZZ", "0.02"))
_KIB_PER_UNIT = 1 / 1024 if sys.platform == "darwin" else 1  # ru_maxrss is in bytes there
_HANGS = 60
"""Seconds after which a case is interrupted."""


@pytest.fixture(scope="session")
def rounds() -> Callable[[int], int]:
    """How many cases of so many this run tries."""
    return lambda whole: max(1, round(whole * SHARE))


@pytest.fixture(scope="session")
def bounded() -> Callable[..., Iterator[None]]:
    """A context that fails when what is inside takes too long or too much memory: ``with bounded(seconds=1): ...``.

    seconds: of this process's CPU time, which a busy machine does not change. gib: by which the process's peak of
    resident memory may grow.
    """

    @contextmanager
    def measured(seconds: float = 2.0, gib: float = 1.0) -> Iterator[None]:
        before, peak = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        handler = signal.signal(signal.SIGALRM, _hangs)
        signal.alarm(_HANGS)
        try:
            yield
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, handler)
        took = time.process_time() - before
        grew = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * _KIB_PER_UNIT / 2**20
        assert took <= seconds, f"took {took:.1f} s of CPU time; {seconds} are allowed"
        assert grew <= gib, f"took {grew:.1f} GiB of memory; {gib} are allowed"

    return measured


def _hangs(*_: object) -> None:
    raise AssertionError(f"no answer within {_HANGS} s")
