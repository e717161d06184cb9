"""Where the commands print: results to stdout, everything else to stderr."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from typing import Any

import typer
from rich.console import Console

UsageError: Any = typer.BadParameter.__mro__[2]
"""Base of errors in a command line: click's ClickException, of which newer releases of typer have their own copy."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_LONGEST = 4000


class _Console(Console):
    """Prints control characters of names and messages as escapes: a terminal would obey them."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(printable(each) if isinstance(each, str) else each for each in objects), **options)


out = _Console(highlight=False, markup=False)
errors = _Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


def show(text: str) -> None:
    """A model's text as it comes: rich would expand tabs and drop control characters."""
    typer.echo(text, nl=False)
    sys.stdout.flush()


def show_error(message: str) -> None:
    """Print an error, cut where it is longer than anyone reads; nothing where stderr cannot be written to."""
    if len(message) > _LONGEST:
        message = f"{message[:_LONGEST]} ... ({len(message) - _LONGEST} more characters)"
    with suppress(OSError):
        errors.print(f"error: {message}", style="red")


def printable(text: str) -> str:
    """The text with control characters, but for tabs and line ends, as hexadecimal escapes."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
