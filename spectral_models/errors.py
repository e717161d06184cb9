"""Errors of this package, in addition to :mod:`spectral_core.errors`."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from spectral_core import ConfigError, SpectralError, UnsupportedInputError

_REMEDIES = {
    errno.ENOSPC: "Free space",
    errno.EDQUOT: "Free space within your quota",
    errno.EFBIG: "Raise the limit on the size of files (ulimit -f)",
    errno.EMFILE: "Raise the limit on open files (ulimit -n)",
}


class CheckpointError(SpectralError, ValueError):
    """A checkpoint that cannot be read or written; the message says what to do."""


class DataError(SpectralError, ValueError):
    """Data that cannot be read, split, cut into windows or decoded."""


@contextmanager
def needs_extra(what: str, extra: str, error: type[SpectralError] = ConfigError) -> Iterator[None]:
    """Around imports: for a missing library, raises an error with the pip command. what: such as ``plots need``."""
    try:
        yield
    except ImportError as missing:
        raise error(
            f"{what} a library that is not installed: {missing.name}. Run: pip install 'spectral-networks[{extra}]'"
        ) from None


def not_numbers(what: str) -> UnsupportedInputError:
    """The error for NaN or infinite outputs. what: which, such as ``logits``."""
    return UnsupportedInputError(
        f"the model's {what} are not numbers: its weights are NaN or infinite, as after training that diverged. Use an "
        "earlier checkpoint, or train with a lower training.learning_rate."
    )


def not_written(failure: str, error: Exception, then: str, *, remedy: str = "Choose another path") -> CheckpointError:
    """The error for files that could not be written, with the cause and what to do.

    failure: such as ``could not save PATH``. error: an OSError, or the exception that safetensors or torch.save raises
    instead. then: the end of the message. remedy: what to do if the cause is no known one.
    """
    number = getattr(error, "errno", None)
    if found := re.search(r"os error (\d+)", str(error)):  # safetensors
        number = int(found[1])
    elif "inline_container" in str(error):  # torch.save, after an incomplete write
        number = errno.ENOSPC
    reason = os.strerror(number) if number else str(error)
    return CheckpointError(f"{failure}: {reason}. {_REMEDIES.get(number or 0, remedy)}{then}")
