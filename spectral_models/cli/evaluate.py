"""``spectral evaluate``: measures of a trained model on held-out or other data."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from spectral_core import ConfigError
from spectral_models.checkpoint import load_checkpoint, load_tokenizer
from spectral_models.cli.console import errors, out
from spectral_models.inputs import TokenInput
from spectral_models.overrides import parse_assignment
from spectral_models.registries import task_of
from spectral_models.training import RunConfig, load_run

_FREE = {"label", "separator", "context"}
"""Options of data that do not affect which rows are held out; input columns do, by their contents."""


def evaluate(
    checkpoint: Path = typer.Argument(help="A checkpoint's directory, or a run's."),
    data: str | None = typer.Option(
        None,
        help="For a language model a text, read as a whole (a file, a directory, 'stdlib', datasets:NAME); for a "
        "classifier a table (.csv, .tsv, .jsonl, .parquet), a folder with a folder of images or WAV files for each "
        "label, or datasets:NAME. By default the held-out data of the checkpoint's run.",
    ),
    text: str | None = typer.Option(None, help="The column or field with the texts. By default the run's, or 'text'."),
    label: str | None = typer.Option(None, help="The column with the labels. By default the run's, or 'label'."),
    split: str = typer.Option("test", help="The split of a dataset to measure a classifier on."),
    context: int | None = typer.Option(
        None, min=1, max=1 << 24, help="Tokens in a window. By default the run's, or 256."
    ),
    batch_size: int = typer.Option(
        32, min=1, max=1 << 16, help="Windows or examples in a batch; results do not depend on it."
    ),
    changes: list[str] = typer.Option(
        [], "--set", metavar="OPTION=VALUE", help="Replace an option of the data, as in separator=|. Repeatable."
    ),
    fft: str | None = typer.Option(None, help="FFT backend, instead of the checkpoint's."),
) -> None:
    """Measure a trained model on its task: bits per byte of a language model, accuracy of a classifier, and others.

    For bits per byte, every byte is predicted once, from the bytes before it in its window; the reference is xz -9 on
    the same bytes. The reference of accuracy is always predicting the most frequent label.

      spectral evaluate runs/mine

      spectral evaluate runs/mine --data book.txt --context 4096

      spectral evaluate runs/reviews --data next_month.csv --text review

      spectral evaluate runs/translation --data pairs.csv --set input=german --set target=english
    """
    model = load_checkpoint(checkpoint, **({} if fft is None else {"fft": fft}))
    run = run_of(checkpoint)
    if not data and run is None:
        raise ConfigError(f"{checkpoint} belongs to no run with held-out data. Say what to read: --data PATH.")
    task = task_of(model.config) if run is None else run.task
    if task is None:
        raise ConfigError(
            f"{checkpoint} holds a model of type {model.config.type}: it declares no task to be measured for."
        )
    defaults: dict[str, Any] = {} if run is None else run.data.model_dump()
    kind = task.data_kinds(model.config)[0] if run is None else type(run.data)
    options: dict[str, Any] = {}
    for option, value in {"text": text, "label": label, "context": context}.items():
        fields = {option, f"{option}_field"} & kind.model_fields.keys()  # corpora have text_field, tables text
        if value is not None and not fields:
            raise ConfigError(f"--{option}: data for {task.type} have no such option. Leave it out.")
        if value is not None:
            options |= dict.fromkeys(fields, value)
    options |= dict(map(parse_assignment, changes))
    changed = {name for name, value in options.items() if defaults.get(name) != value}
    if data is None and (other := sorted(changed - _FREE)):
        raise ConfigError(
            f"another {other[0]} would measure other rows than the run held out, some of them trained on. Leave it "
            "out, or say what to read: --data PATH."
        )
    if data is not None:
        options["source"] = data
    limits = [spec.max_length for spec in model.input_specs() if isinstance(spec, TokenInput) and spec.max_length]
    if limits and "max_length" in kind.model_fields:
        options.setdefault("max_length", limits[0])
    if run is not None and data is not None and os.path.realpath(data) == os.path.realpath(run.data.source):
        errors.print(f"the model was trained on part of {data}; without --data its held-out part is measured")
    config = kind.parse({**defaults, **options})
    if reasons := task.unsupported_reasons(model.config, config):
        raise ConfigError("; ".join(reasons) + ".")
    loaded = task.load(
        model.config, config, tokenizer=load_tokenizer(checkpoint), split=None if data is None else split
    )
    with _progress(len(loaded.held_out), loaded.held_out.what) as advance:
        measures = loaded.judge(model, batch_size=batch_size, on_batch=advance)
    lines = loaded.lines(measures)
    width = max(len(name) for name, _ in lines)
    out.print("\n".join(f"{name:<{width}}  {value}" for name, value in lines), soft_wrap=True)


def run_of(checkpoint: Path) -> RunConfig | None:
    """The run of a checkpoint in a run's directory, or of the directory itself."""
    here = checkpoint.resolve()
    for folder in (here, *list(here.parents)[:2]):
        if (folder / "run.yaml").is_file():
            return load_run(folder / "run.yaml")
    return None


@contextmanager
def _progress(total: int, what: str) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr if it is a terminal. Yields a function that adds a number of items."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("", total=total)
        yield lambda count: bar.advance(task, count)
