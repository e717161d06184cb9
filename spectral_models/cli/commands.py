"""The typer application of the ``spectral`` command; each subcommand has a file."""

from __future__ import annotations

import logging
from typing import Any

import typer
from typer.core import TyperGroup

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


class _Commands(TyperGroup):
    """Reports Ctrl-C for commands that do not handle it."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            errors.print("interrupted")
            raise typer.Exit(130) from None


app = typer.Typer(
    name="spectral",
    cls=_Commands,
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
    verbose: bool = typer.Option(
        False, "--verbose", "-v", help="Also show plans, log messages, and tracebacks of internal errors."
    ),
) -> None:
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(name)s: %(message)s")
