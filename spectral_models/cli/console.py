"""Where the commands print: results to stdout, everything else to stderr."""

from __future__ import annotations

from rich.console import Console

out = Console()
errors = Console(stderr=True, soft_wrap=True)
