"""``spectral plugins``: lists installed plugins, and writes the package of a new one."""

from __future__ import annotations

import shlex
from pathlib import Path

import typer
from rich.text import Text

from spectral_core.plugins import HOST
from spectral_models.causality import OUT_OF_REACH
from spectral_models.cli import scaffold
from spectral_models.cli.console import out
from spectral_models.cli.outputs import check_output
from spectral_models.registries import MODELS

app = typer.Typer()


@app.callback(invoke_without_command=True)
def plugins(context: typer.Context) -> None:
    """List installed plugins with their parts or failures; `new` writes a package for one of your own.

    A plugin is any installed package with an entry point in the group
    spectral.plugins. SPECTRAL_DISABLE_PLUGINS=1 loads none of them,
    SPECTRAL_PLUGINS=a,b only these.

      spectral plugins

      spectral plugins new acme --kind gate
    """
    if context.invoked_subcommand is not None:
        return
    assert MODELS  # importing the last of the registries declares them all
    failures = HOST.failures()
    found = {name: provider for name, provider in HOST.discover().items() if provider.namespace is not None}
    for name, provider in found.items():
        parts = [f"{kind} {part}" for kind, registry in HOST.registries.items() for part in registry.names(f"{name}/*")]
        _line(name, f"{provider.distribution} {provider.version}", ", ".join(parts) or "no parts")
    for failure in failures:
        _line(failure.plugin, failure.distribution, f"failed in {failure.stage}: {failure.reason}", style="red")
    if found:
        out.print(
            "\nA decoder with such parts is checked for causality when it is built. Out of the check's reach: "
            f"{OUT_OF_REACH}.",
            soft_wrap=True,
        )
    if HOST.restriction:
        out.print(HOST.restriction, soft_wrap=True)
    elif not found and not failures:
        out.print("no plugins are installed. Begin one with: spectral plugins new NAME --kind gate", soft_wrap=True)


@app.command()
def new(
    name: str = typer.Argument(help="Such as acme or spectral-acme; its parts are called acme/<part>."),
    kind: scaffold.Kind = typer.Option(..., help="The kind of its first part."),
    directory: Path = typer.Option(Path(), help="Where to create its folder, spectral-<name>."),
) -> None:
    """Write a plugin: an installable package with one working part, its tests and a README.

    The tests run the framework's public checks on the part, and pass as written.
    Nothing is installed; the commands for it are printed.

      spectral plugins new acme --kind filter

      spectral plugins new acme --kind backend --directory ~/plugins
    """
    plugin = scaffold.Plugin.called(name)
    check_output(directory)
    folder = scaffold.write(plugin, kind, directory)
    out.print(
        f"{folder}: a package with the {kind.value} {plugin.part(kind)}. Next:\n"
        f"  pip install --editable {shlex.quote(f'{folder}[test]')}\n"
        f"  pytest {shlex.quote(str(folder))}",
        soft_wrap=True,
    )


def _line(name: str, distribution: str, what: str, style: str = "") -> None:
    label = (f"{name:<16}", f"bold {style}")
    out.print(Text.assemble(label, f"  {distribution:<28}  ", (what, style)), soft_wrap=True)
