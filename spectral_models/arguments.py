"""Checks of the type and range of numbers from users."""

from __future__ import annotations

import math
import operator
from typing import Any

from spectral_core import ConfigError
from spectral_core.errors import shown


def whole(name: str, value: Any, *, least: int | None = None, most: int | None = None) -> int:
    """The value as an int in [least, most]. NumPy integers and one-element tensors are allowed, bools and 2.0 are not.

    Raises ConfigError for other values.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except (TypeError, RuntimeError):  # RuntimeError: a tensor with several elements
        number = None
    if number is None:
        kind = type(value).__name__
        allowed = "" if least is None else f", at least {least}"
        raise ConfigError(f"{name} must be a whole number{allowed}; got {shown(value)}, of type {kind}.")
    if least is not None and number < least:
        raise ConfigError(f"{name} must be at least {least}; got {shown(value)}.")
    if most is not None and number > most:
        raise ConfigError(f"{name} must be at most {most:,}; got {shown(value)}.")
    return number


def real(
    name: str, value: Any, *, least: float | None = None, above: float | None = None, most: float | None = None
) -> float:
    """The value as a finite float within the limits. NumPy numbers and one-element tensors are allowed.

    Raises ConfigError for other values.
    """
    limits = (("at least", least), ("above", above), ("at most", most))
    allowed = " and ".join(f"{words} {limit:g}" for words, limit in limits if limit is not None)
    try:
        number = None if isinstance(value, bool | str | bytes) else float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        number = None
    if number is None:
        kind = type(value).__name__
        raise ConfigError(f"{name} must be a number, {allowed or 'finite'}; got {shown(value)}, of type {kind}.")
    low = (least is None or number >= least) and (above is None or number > above)
    if not (math.isfinite(number) and low and (most is None or number <= most)):
        raise ConfigError(f"{name} must be {allowed or 'finite'}; got {number:g}.")
    return number
