"""The ``spectral`` command: registers the subcommands and turns our errors into one clear line."""

from __future__ import annotations

import logging
import sys
import traceback

import typer

from spectral_core import SpectralError
from spectral_models.cli import (
    bench,
    classify,
    components,
    config,
    doctor,
    embed,
    evaluate,
    export,
    generate,
    inspect,
    plugins,
    quantize,
    train,
)
from spectral_models.cli.console import errors

_MAY_EXIT = ("click", "typer", "spectral_models", "__main__")

app = typer.Typer(
    name="spectral",
    help="Neural sequence models that mix tokens in the frequency domain, strictly causal where they say so.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("components")(components.components)
app.command("doctor")(doctor.doctor)
app.add_typer(plugins.app, name="plugins")
app.add_typer(config.app, name="config")
app.command("train")(train.train)
app.command("generate")(generate.generate)
app.command("evaluate")(evaluate.evaluate)
app.command("classify")(classify.classify)
app.command("embed")(embed.embed)
app.command("export")(export.export)
app.command("quantize")(quantize.quantize)
app.command("inspect")(inspect.inspect)
app.add_typer(bench.app, name="bench")


@app.callback()
def options(
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Also show plans and what was logged on the way."),
) -> None:
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(name)s: %(message)s")


def main() -> None:
    """Entry point. Exit status 1 for what a user can mend, 2 for wrong usage, 130 for Ctrl-C."""
    try:
        app()
    except SpectralError as error:
        errors.print(f"error: {error}", style="red", markup=False, highlight=False)
        sys.exit(1)
    except SystemExit as error:
        place = _outside(error)
        if place is None:
            raise
        errors.print(f"error: {place} called sys.exit({error.code!r}).", style="red", markup=False, highlight=False)
        sys.exit(1)


def _outside(error: SystemExit) -> str | None:
    """The line that called sys.exit where it is a third party's part or plugin, which must not end a command."""
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    package = frame.f_globals.get("__name__", "").partition(".")[0]
    return None if package in _MAY_EXIT else f"{frame.f_code.co_filename}:{line}"


if __name__ == "__main__":
    main()
