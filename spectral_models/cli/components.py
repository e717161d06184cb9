"""``spectral components``: what is registered, and by whom."""

from __future__ import annotations

import json

import typer
from rich.table import Table

from spectral_core import ConfigError
from spectral_core.errors import suggestion
from spectral_core.plugins import HOST
from spectral_models.cli.console import out
from spectral_models.registries import MODELS


def components(
    kind: str = typer.Argument(None, help="Only this kind: mixer, filter, gate, fft, feedforward, fusion, model."),
    as_json: bool = typer.Option(False, "--json", help="As a JSON list, for scripts."),
) -> None:
    """List registered components with what they do and which package provides them."""
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
    table = Table("kind", "name", "what it does", "provider", box=None, header_style="bold", pad_edge=False)
    for entry in entries:
        table.add_row(entry.kind, f"[bold]{entry.name}[/]", entry.summary, f"{entry.provider} {entry.version}")
    out.print(table)
    for line in HOST.failure_lines():
        out.print(f"plugin {line}", style="red", markup=False)
