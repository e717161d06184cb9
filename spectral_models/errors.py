"""Errors of this package, beyond those of :mod:`spectral_core.errors`."""

from __future__ import annotations

from spectral_core import SpectralError, UnsupportedInputError


class CheckpointError(SpectralError, ValueError):
    """A checkpoint that cannot be read or written; the message says what to do."""


class DataError(SpectralError, ValueError):
    """Data that cannot be read, split, cut into windows or decoded."""


def not_numbers(what: str) -> UnsupportedInputError:
    """The error of outputs that are NaN or infinite. what: the outputs, as ``logits``."""
    return UnsupportedInputError(
        f"the model's {what} are not numbers: its weights are not, as after a training that diverged. Use an earlier "
        "checkpoint, or train at a lower rate (training.learning_rate)."
    )
