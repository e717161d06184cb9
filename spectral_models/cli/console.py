"""Where the commands print: results to stdout, everything else to stderr."""

from __future__ import annotations

import sys

import typer
from rich.console import Console

out = Console()
errors = Console(stderr=True, soft_wrap=True)


def show(text: str) -> None:
    """A model's text as it comes: rich would expand tabs and drop control characters."""
    typer.echo(text, nl=False)
    sys.stdout.flush()
