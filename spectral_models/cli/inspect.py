"""``spectral inspect``: plots of what a model does to frequencies."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

import torch
import typer
from torch import Tensor

from spectral_core import ConfigError
from spectral_core.errors import suggestion
from spectral_models.assembly import build_model, list_models
from spectral_models.checkpoint import find, load_checkpoint, load_tokenizer
from spectral_models.cli.config import read_config
from spectral_models.cli.console import out, plain_table
from spectral_models.cli.outputs import check_output
from spectral_models.data import ByteTokenizer, Tokenizer
from spectral_models.errors import needs_extra
from spectral_models.inputs import TokenInput
from spectral_models.inspection.reader import inspect_model
from spectral_models.inspection.readings import Reading
from spectral_models.model import SpectralModel
from spectral_models.training.config import RunConfig

_TEXT_BYTES = 4096
_DIGITS = 5  # of a layer's number
_SAMPLE = resources.files("spectral_models.cli") / "sample.txt"


def inspect(
    source: str = typer.Argument(
        metavar="CHECKPOINT",
        help="A checkpoint's directory, or a run's; or a preset's name or a config file, for an untrained model.",
    ),
    output: Path = typer.Option(
        None,
        "--out",
        help="Directory for the plots. By default RUN/inspection, or CHECKPOINT-inspection beside the checkpoint.",
    ),
    layers: str = typer.Option(None, help="Only these layers, counted from 0, as in 0,2 or 4-7."),
    text: Path = typer.Option(
        None,
        help=f"A file whose first {_TEXT_BYTES:,} bytes gates get. By default a sample of prose, code and figures.",
    ),
    length: int = typer.Option(4096, min=2, help="Taps of each filter's kernel to plot."),
) -> None:
    """Plot a model's frequency responses, a PNG for each kind of part, and print a line about each plot.

    Long filters by frequency (magnitude, phase) and by lag; poles of recurrent
    filters in the unit circle; time constants of memories; taps of short
    convolutions; gates as the mixer realises them on a text, beside their
    requested gains and the bins that a sparsity keeps.

      spectral inspect runs/mine --layers 0,2

      spectral inspect tiny --out plots
    """
    with needs_extra("plots need", "train"):  # before the model is loaded
        import matplotlib.figure  # noqa: F401
    wanted = None if layers is None else parse_layers(layers)
    given = None if text is None else _read(text)
    directory = output or _beside(source)
    check_output(directory, [source, text or ""])
    model = _model(source)
    tokenizer = load_tokenizer(source) if Path(source).is_dir() else ByteTokenizer()
    inspection = inspect_model(model, _tokens(model, tokenizer, given, text), layers=wanted, length=length)
    if not inspection.readings:
        raise ConfigError(f"there is nothing to draw of {source}. {'; '.join(map(str, inspection.silent))}.")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _show(inspection.readings, directory)
    except OSError as error:
        raise ConfigError(f"cannot write plots to {directory}: {error.strerror}. Choose another --out.") from None
    for part in inspection.silent:
        out.print(f"not drawn: {part}", style="yellow", soft_wrap=True)


def parse_layers(text: str) -> list[int]:
    """``0,2,4-6`` → [0, 2, 4, 5, 6]."""
    layers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        numbers = [first, last] if dash else [first]
        valid = all(number.isdecimal() and len(number) <= _DIGITS for number in numbers)
        if not valid or int(numbers[-1]) < int(first):
            raise ConfigError(
                f"--layers {text}: {part.strip()!r} is no layer. Write numbers and ranges, as in 0,2,4-6, of at most "
                f"{_DIGITS} digits."
            )
        layers += range(int(first), int(last or first) + 1)
    return layers


def _model(source: str) -> SpectralModel:
    """The model of a checkpoint, or of a config, initialised from a fixed seed."""
    path = Path(source)
    if path.is_dir():
        return load_checkpoint(path)
    presets = list_models()
    if source not in presets and not path.is_file() and path.suffix not in (".yaml", ".yml", ".json"):
        raise ConfigError(
            f"there is no checkpoint directory at {source}, and no preset has this name.{suggestion(source, presets)} "
            f"Presets: {', '.join(presets)}. A config file ends in .yaml, .yml or .json."
        )
    config = read_config(source, [])
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return build_model(config.model if isinstance(config, RunConfig) else config)


def _beside(source: str) -> Path:
    """The default directory: inside a run, but beside a bare checkpoint, which must not hold other files."""
    path = Path(source)
    if path.is_dir() and find(path) != Path(os.path.realpath(path)):
        return path / "inspection"
    path = Path(os.path.abspath(path)) if path.is_dir() else Path(path.stem)  # noqa: PTH100 - "." has no name
    return path.with_name(f"{path.name}-inspection")


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_TEXT_BYTES)
    except OSError as error:
        raise ConfigError(f"cannot read the text {path}: {error.strerror}.") from None
    if not content:
        raise ConfigError(f"the text {path} is empty; gates need at least one token. Give another.")
    return content


def _tokens(model: SpectralModel, tokenizer: Tokenizer, given: bytes | None, path: Path | None) -> Tensor | None:
    """The text's tokens up to the model's length limit, (1, L); None for a model that reads no text."""
    spec = model.only_input
    if not isinstance(spec, TokenInput):
        return None
    text: str | bytes = _SAMPLE.read_text(encoding="utf-8") if given is None else given
    if isinstance(text, bytes) and not isinstance(tokenizer, ByteTokenizer):
        text = text.decode(errors="ignore")  # the last character may be incomplete
    ids = torch.tensor([tokenizer.encode(text)])
    beyond = ids[ids >= spec.vocab_size]
    if len(beyond) and given is None:
        return None
    if len(beyond):
        raise ConfigError(
            f"the text {path} has the token {int(beyond[0])}, and this model's vocabulary is "
            f"{spec.vocab_size}. Give another text, or leave --text out."
        )
    return ids[:, : spec.length_limit]


def _show(readings: list[Reading], directory: Path) -> None:
    """Draw the plots, and print a table of readings; a pipe gets one unwrapped line for each."""
    from spectral_models.inspection.drawing.pages import write_pictures

    table = plain_table("plot", "layer", "part", "reading")
    for path, shown in write_pictures(readings, directory):
        for reading in shown:
            line = (path.name, str(reading.place.layer), reading.place.of_layer, reading.summary())
            table.add_row(*line)
            if not out.is_terminal:
                typer.echo(f"{line[0]:<14}  {line[1]:>3}  {line[2]:<42}  {line[3]}")
    if out.is_terminal:
        out.print(table)
    typer.echo(f"written to {directory}")
