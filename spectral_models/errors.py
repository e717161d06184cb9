"""Errors of this package, beyond those of :mod:`spectral_core.errors`."""

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
    """Around imports: a missing library is an error that says what to install. what: ``plots need``, say."""
    try:
        yield
    except ImportError as missing:
        raise error(
            f"{what} a library that is not installed: {missing.name}. Run: pip install 'spectral-networks[{extra}]'"
        ) from None


def not_numbers(what: str) -> UnsupportedInputError:
    """The error of NaN or infinite outputs. what: the outputs, as ``logits``."""
    return UnsupportedInputError(
        f"the model's {what} are not numbers: its weights are not, as after a training that diverged. Use an earlier "
        "checkpoint, or train at a lower rate (training.learning_rate)."
    )


def not_written(failure: str, error: Exception, then: str, *, remedy: str = "Choose another path") -> CheckpointError:
    """The error of files that could not be written, with its cause and its remedy.

    failure: ``could not save PATH``. error: an OSError, or the exception of safetensors or torch.save for one. then:
    the end of the message. remedy: the advice if the cause has no better one.
    """
    number = getattr(error, "errno", None)
    if found := re.search(r"os error (\d+)", str(error)):  # safetensors
        number = int(found[1])
    elif "inline_container" in str(error):  # torch.save's archive, which stops at a write that came out short
        number = errno.ENOSPC
    reason = os.strerror(number) if number else str(error)
    return CheckpointError(f"{failure}: {reason}. {_REMEDIES.get(number or 0, remedy)}{then}")
