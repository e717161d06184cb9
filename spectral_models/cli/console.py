"""The consoles of commands: results on stdout, everything else on stderr."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

UsageError: Any = typer.BadParameter.__mro__[2]
"""Base of usage errors: click's ClickException, or typer's own copy of it in newer releases."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_LONGEST = 4000


class _Console(Console):
    """Escapes control characters in names and messages, so that a terminal does not execute them."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(printable(each) if isinstance(each, str) else each for each in objects), **options)


out = _Console(highlight=False, markup=False)
errors = _Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


def plain_table(*headers: str) -> Table:
    """A table without rules."""
    return Table(*headers, box=None, pad_edge=False, padding=(0, 2, 0, 0))


def show(text: str) -> None:
    """Print a model's text unchanged; rich would expand tabs and drop control characters."""
    typer.echo(text, nl=False)
    sys.stdout.flush()


def show_error(message: str) -> None:
    """Print an error, shortened if it is very long; failures to write to stderr are ignored."""
    if len(message) > _LONGEST:
        message = f"{message[:_LONGEST]} ... ({len(message) - _LONGEST} more characters)"
    with suppress(OSError):
        errors.print(f"error: {message}", style="red")


def printable(text: str) -> str:
    """The text with control characters other than tabs and line feeds as hexadecimal escapes."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
