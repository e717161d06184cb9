"""``spectral components``: what is registered, and by whom."""

from __future__ import annotations

import json
from itertools import groupby

import typer
from rich.table import Table
from rich.text import Text

from spectral_core import ConfigError
from spectral_core.errors import suggestion
from spectral_core.plugins import BUILTIN_PROVIDER, HOST
from spectral_models.cli.console import out
from spectral_models.registries import MODELS


def components(
    kind: str = typer.Argument(
        None, help="Only this kind: mixer, filter, gate, sparsity, fft, feedforward, fusion, position, frontend, model."
    ),
    as_json: bool = typer.Option(False, "--json", help="As a JSON list, for scripts."),
) -> None:
    """List registered components with what they do and, where it is not this one, the package that provides them."""
    assert MODELS  # the last of the registries: importing it declares them all
    if kind is not None and kind not in HOST.registries:
        raise ConfigError(
            f"no kind of component is called {kind!r}.{suggestion(kind, HOST.registries)} "
            f"Kinds: {', '.join(HOST.registries)}."
        )
    entries = [entry for name in ([kind] if kind else HOST.registries) for entry in HOST.registries[name]]
    if as_json:
        fields = ("kind", "name", "summary", "provider", "version")
        out.print_json(json.dumps([{field: getattr(entry, field) for field in fields} for entry in entries]))
        return
    # A terminal gets groups that fit it; a pipe gets one whole line for each component, for grep.
    table = Table.grid(padding=(0, 2))
    for found, members in groupby(entries, key=lambda entry: entry.kind):
        table.add_row(f"[bold]{found}[/]")
        for entry in members:
            source = "" if entry.provider == BUILTIN_PROVIDER else f" ({entry.provider} {entry.version})"
            table.add_row(f"  {entry.name}", Text.assemble(entry.summary, (source, "dim")))
            if not out.is_terminal:
                typer.echo(f"{entry.kind:<11}  {entry.name:<18}  {entry.summary}{source}")
    if out.is_terminal:
        out.print(table)
    for line in HOST.failure_lines():
        out.print(line, style="red", markup=False, soft_wrap=True)
