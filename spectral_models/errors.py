"""Errors of this package, beyond those of :mod:`spectral_core.errors`."""

from __future__ import annotations

from spectral_core import SpectralError


class CheckpointError(SpectralError, ValueError):
    """A checkpoint that cannot be read or written; the message says what to do."""


class DataError(SpectralError, ValueError):
    """Data that cannot be read, split, cut into windows or decoded."""
