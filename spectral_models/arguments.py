"""Numbers that users hand to functions and commands: of the right kind and in range, or a ConfigError that says so."""

from __future__ import annotations

import math
import operator
from typing import Any

from spectral_core import ConfigError


def whole(name: str, value: Any, *, least: int | None = None, most: int | None = None) -> int:
    """A whole number in [least, most], also one of numpy or a tensor of one; neither a truth value nor 2.0."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except (TypeError, RuntimeError):  # RuntimeError: of a tensor of several
        number = None
    if number is None:
        kind = type(value).__name__
        allowed = "" if least is None else f", at least {least}"
        raise ConfigError(f"{name} must be a whole number{allowed}; got {_shown(value)}, of type {kind}.")
    if least is not None and number < least:
        raise ConfigError(f"{name} must be at least {least}; got {_shown(value)}.")
    if most is not None and number > most:
        raise ConfigError(f"{name} must be at most {most:,}; got {_shown(value)}.")
    return number


def real(
    name: str, value: Any, *, least: float | None = None, above: float | None = None, most: float | None = None
) -> float:
    """A finite number, at least ``least`` or above ``above``, at most ``most``; also of numpy, or a tensor of one."""
    limits = (("at least", least), ("above", above), ("at most", most))
    allowed = " and ".join(f"{words} {limit:g}" for words, limit in limits if limit is not None)
    try:
        number = None if isinstance(value, bool | str | bytes) else float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        number = None
    if number is None:
        kind = type(value).__name__
        raise ConfigError(f"{name} must be a number, {allowed or 'finite'}; got {_shown(value)}, of type {kind}.")
    low = (least is None or number >= least) and (above is None or number > above)
    if not (math.isfinite(number) and low and (most is None or number <= most)):
        raise ConfigError(f"{name} must be {allowed or 'finite'}; got {number:g}.")
    return number


def _shown(value: Any) -> str:
    """As Python writes it, cut: a list or a text may be long. A number of thousands of digits has no such form."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:
        text = "a number of more digits than Python writes"
    return text if len(text) <= 60 else f"{text[:60]}..."
