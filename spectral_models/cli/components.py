"""``spectral components``: registered parts, their providers and options."""

from __future__ import annotations

import json
from itertools import groupby
from typing import Any

import typer
from pydantic.fields import FieldInfo
from rich.table import Table
from rich.text import Text

from spectral_core import ConfigError
from spectral_core.config import PartConfig
from spectral_core.errors import suggestion
from spectral_core.plugins import BUILTIN_PROVIDER, HOST
from spectral_core.registry import Entry
from spectral_models.cli.console import out
from spectral_models.registries import MODELS


def components(
    kind: str | None = typer.Argument(
        None, help="Only this kind: mixer, filter, gate, sparsity, fft, feedforward, fusion, position, frontend, model."
    ),
    name: str | None = typer.Argument(None, help="One part of that kind: its options, with their defaults."),
    as_json: bool = typer.Option(False, "--json", help="Print the list as JSON."),
) -> None:
    """List the parts that configs can name, or the options of one of them.

    A config names a part by itself, with its defaults, or with options beside
    its type: filter: resonant, or filter: {type: resonant, modes: 32}. Parts of
    plugins are listed with the package they come from.

      spectral components

      spectral components filter

      spectral components filter resonant
    """
    assert MODELS  # importing the last of the registries declares them all
    if kind is not None and kind not in HOST.registries:
        raise ConfigError(
            f"no kind of component is called {kind!r}.{suggestion(kind, HOST.registries)} "
            f"Kinds: {', '.join(HOST.registries)}."
        )
    if kind is not None and name is not None:
        _show_options(HOST.registries[kind].get(name))
        return
    entries = [entry for each in ([kind] if kind else HOST.registries) for entry in HOST.registries[each]]
    if as_json:
        fields = ("kind", "name", "summary", "provider", "version")
        out.print_json(json.dumps([{field: getattr(entry, field) for field in fields} for entry in entries]))
        return
    # A pipe gets one unwrapped line for each component, for grep.
    table = Table.grid(padding=(0, 2))
    for found, members in groupby(entries, key=lambda entry: entry.kind):
        table.add_row(Text(found, "bold"))
        for entry in members:
            source = "" if entry.provider == BUILTIN_PROVIDER else f" ({entry.provider} {entry.version})"
            table.add_row(f"  {entry.name}", Text.assemble(entry.summary, (source, "dim")))
            if not out.is_terminal:
                typer.echo(f"{entry.kind:<11}  {entry.name:<18}  {entry.summary}{source}")
    if out.is_terminal:
        out.print(table)
    for line in HOST.failure_lines():
        out.print(line, style="red", soft_wrap=True)


def _show_options(entry: Entry[Any]) -> None:
    """A line for each option: name, default, meaning."""
    out.print(Text.assemble((entry.name, "bold"), f"  {entry.summary}"), soft_wrap=True)
    fields = {name: field for name, field in entry.load().model_fields.items() if name != "type"}
    defaults = {name: _default(field) for name, field in fields.items()}
    columns = [max(map(len, column), default=0) for column in (defaults, defaults.values())]
    for name, field in fields.items():
        meaning = " ".join((field.description or "").split())
        line = Text.assemble(f"  {name:<{columns[0]}}  ", (f"{defaults[name]:<{columns[1]}}", "dim"), f"  {meaning}")
        out.print(line, soft_wrap=True)
    if not fields:
        out.print("  no options")


def _default(field: FieldInfo) -> str:
    """A field's default as in YAML; a part by its name."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, PartConfig):
        value = value.type
    return value if isinstance(value, str) else json.dumps(value)
