"""``spectral config``: show configs, validate them, and print their JSON Schema."""

from __future__ import annotations

import json
from pathlib import Path

import typer
import yaml
from rich.syntax import Syntax
from rich.table import Table

from spectral_core import ConfigError
from spectral_core.plain_data import is_file
from spectral_models.assembly import build_model, count_parameters, list_models, load_config, read_yaml, without_memory
from spectral_models.cli.console import out
from spectral_models.config import ModelConfig, list_blocks
from spectral_models.overrides import parse_assignment
from spectral_models.registries import MODELS
from spectral_models.training.config import RunConfig, load_run

app = typer.Typer(
    help=f"Show, check and describe configs: of models, and of runs (model, data, training).\n\n"
    f"Presets: {', '.join(list_models())}. "
    f"Named blocks, for a model's block and layers: {', '.join(list_blocks())}. "
    "Options of a part: spectral components KIND NAME.",
    no_args_is_help=True,
)
_SOURCE = typer.Argument(help=f"A YAML or JSON file, a model's or a run's; or a preset: {', '.join(list_models())}.")
_SET = typer.Option(
    [], "--set", metavar="PATH=VALUE", help="Replace a value, as in layers.0.mixer.filter.modes=8. Repeatable."
)


@app.command("list")
def list_presets(pattern: str = typer.Argument("*", help="Only presets that match this shell-style pattern.")) -> None:
    """List presets, the smallest first, with their model variant and number of parameters.

    Counted without allocating them; contexts are in docs/presets.md.

      spectral config list "slm-*"
    """
    found = [
        (count_parameters(config), name, config) for name in list_models(pattern) for config in [load_config(name)]
    ]
    if not found:
        raise ConfigError(f"no preset matches {pattern!r}. Presets: {', '.join(list_models())}.")
    table = Table.grid(padding=(0, 2))
    for count, name, config in sorted(found, key=lambda entry: entry[:2]):
        row = f"{name:<16}", f"{config.type:<14}", f"{count:>15,}"
        table.add_row(*row)
        if not out.is_terminal:
            typer.echo("  ".join(row))
    if out.is_terminal:
        out.print(table)


@app.command()
def show(source: str = _SOURCE, changes: list[str] = _SET) -> None:
    """Print the whole config, including defaults, as a YAML config file.

    spectral config show tiny --set fft=hierarchical > mine.yaml

    spectral config show examples/demo.yaml --set training.steps=2000
    """
    text = yaml.safe_dump(read_config(source, changes).model_dump(mode="json"), sort_keys=False)
    if out.is_terminal:
        out.print(Syntax(text, "yaml", background_color="default", word_wrap=True))
    else:
        typer.echo(text, nl=False)  # rich would wrap long lines


@app.command()
def validate(source: str = _SOURCE, changes: list[str] = _SET) -> None:
    """Check a config by building its model; exits with 1 and the path of every problem.

    No memory is allocated for parameters.

      spectral config validate mine.yaml --set num_layers=12
    """
    config = read_config(source, changes)
    with without_memory():
        model = build_model(config.model if isinstance(config, RunConfig) else config)
    count = sum(parameter.numel() for parameter in model.parameters())
    out.print(f"{source}: valid, {model.config.type} with {count:,} parameters")


@app.command()
def schema(
    variant: str = typer.Argument("run", help="'run' for what `spectral train` reads, or a model variant's name."),
) -> None:
    """Print the JSON Schema with the parts of installed plugins, for editors and validators.

    It has the meaning, default and limits of each value.

      spectral config schema > run.schema.json

      spectral config schema language_model
    """
    config = RunConfig if variant == "run" else MODELS.get(variant).load()
    out.print_json(json.dumps(config.model_json_schema()))


def read_config(source: str, changes: list[str]) -> ModelConfig | RunConfig:
    """The config of a preset, or of a model's or a run's file."""
    assignments = dict(map(parse_assignment, changes))
    if source not in list_models() and is_file(Path(source)) and "model" in read_yaml(Path(source)):
        return load_run(source, assignments)
    return load_config(source, **assignments)
