"""``spectral evaluate``: a trained model's numbers on what it has not learned from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from spectral_core import ConfigError
from spectral_models.checkpoint import load_checkpoint, load_tokenizer
from spectral_models.cli.console import errors, out
from spectral_models.config import LabelSet
from spectral_models.data import ContiguousWindows, DataConfig, Tokenizer, load_corpus
from spectral_models.data.batches import Examples, FileExamples, TextExamples
from spectral_models.data.corpus import measured_tokens
from spectral_models.data.documents import read_documents
from spectral_models.data.folders import LabelledFilesConfig
from spectral_models.data.labelled import LabelledConfig, LabelledTextsConfig
from spectral_models.data.labels import class_numbers, majority
from spectral_models.data.readers import file_reader
from spectral_models.data.source import load
from spectral_models.evaluation import bits_per_byte, judge_classifier, xz_bits_per_byte
from spectral_models.inputs import TokenInput
from spectral_models.model import SpectralModel
from spectral_models.training import RunConfig, load_run


def evaluate(
    checkpoint: Path = typer.Argument(help="A checkpoint's directory, or a run's."),
    data: str | None = typer.Option(
        None,
        help="Text for a language model (a file, a directory, 'stdlib', datasets:NAME), all of it; for a "
        "classifier a table (.csv, .tsv, .jsonl, .parquet), or a folder with one of images or WAV files for each "
        "label, or datasets:NAME. By default what the checkpoint's run held out.",
    ),
    text: str | None = typer.Option(None, help="The column or field with the texts. By default the run's, or 'text'."),
    label: str | None = typer.Option(None, help="The column with the labels. By default the run's, or 'label'."),
    split: str = typer.Option("test", help="Which split of a dataset a classifier is judged on."),
    context: int | None = typer.Option(
        None, min=1, max=1 << 24, help="Tokens a window feeds. By default the run's, or 256."
    ),
    batch_size: int = typer.Option(
        32, min=1, max=1 << 16, help="Windows or examples at a time; the numbers do not depend on it."
    ),
    fft: str | None = typer.Option(None, help="FFT backend, instead of the checkpoint's."),
) -> None:
    """Bits per byte of a language model, or accuracy of a classifier.

    Bits per byte predict every byte once, from what stands before it in its window; xz -9 is given the same bytes.
    Beside accuracy stands that of a constant answer.

      spectral evaluate runs/mine

      spectral evaluate runs/mine --data book.txt --context 4096

      spectral evaluate runs/reviews --data next_month.csv --text review
    """
    model = load_checkpoint(checkpoint, **({} if fft is None else {"fft": fft}))
    tokenizer = load_tokenizer(checkpoint)
    run = run_of(checkpoint)
    if not data and run is None:
        raise ConfigError(f"{checkpoint} lies in no run that held anything out. Say what to read: --data PATH.")
    if run is not None and data == run.data.source:
        errors.print(f"the model was trained on part of {data}; without --data what it held out is measured")
    spec, known = model.only_input, model.config.label_set
    if model.continues_text:
        config = run.data if run is not None and isinstance(run.data, DataConfig) else DataConfig()
        config = config.model_copy(update=_given(source=data, text_field=text, context=context))
        _judge_language(model, tokenizer, config, batch_size, whole=data is not None)
    elif known is not None and spec is not None:
        past = run.data if run is not None and isinstance(run.data, LabelledConfig) else None
        kind = LabelledTextsConfig if spec.kind == "tokens" else LabelledFilesConfig
        if text is not None and kind is LabelledFilesConfig:
            raise ConfigError("--text names a column of texts, and this model reads none. Leave it out.")
        sources = (past or kind(source="-")).model_copy(update=_given(source=data, text=text, label=label))
        _judge_classifier(model, known, tokenizer, sources, batch_size, split=None if data is None else split)
    else:
        raise ConfigError(
            f"{checkpoint} holds a model of type {model.config.type}; evaluate measures language models and "
            "classifiers."
        )


def run_of(checkpoint: Path) -> RunConfig | None:
    """The run whose directory holds a checkpoint, or is meant by it."""
    here = checkpoint.resolve()
    for folder in (here, *list(here.parents)[:2]):
        if (folder / "run.yaml").is_file():
            return load_run(folder / "run.yaml")
    return None


def _given(**options: object) -> dict[str, object]:
    return {name: value for name, value in options.items() if value is not None}


def _judge_language(
    model: SpectralModel, tokenizer: Tokenizer, config: DataConfig, batch_size: int, *, whole: bool
) -> None:
    if whole:
        held_out: bytes | bytearray = read_documents(config).text
        tokens, text_bytes = measured_tokens(held_out, tokenizer)
    else:
        corpus = load_corpus(config, tokenizer=tokenizer)
        held_out, tokens, text_bytes = corpus.validation_text, corpus.validation, corpus.validation_bytes
    context = min(config.context, max(1, len(tokens) - 1))  # a longer window would be padding
    windows = ContiguousWindows(tokens, context, text_bytes)
    with _progress(len(windows), "windows") as advance:
        bits = bits_per_byte(model, windows, batch_size=batch_size, on_batch=advance)
    out.print(
        f"bits per byte  {bits:.4f}  (xz -9 on the same bytes: {xz_bits_per_byte(held_out):.4f})\n"
        f"measured on    {text_bytes:,} bytes in {len(tokens) - 1:,} tokens, in windows of {context}",
        highlight=False,
        soft_wrap=True,
    )


def _judge_classifier(
    model: SpectralModel,
    known: LabelSet,
    tokenizer: Tokenizer,
    config: LabelledConfig,
    batch_size: int,
    *,
    split: str | None,
) -> None:
    found = load(config)[1] if split is None else config.table(config.source, split)
    labels, _ = class_numbers(found, *known)
    examples: Examples
    if isinstance(config, LabelledTextsConfig):
        told = model.only_input.max_length if isinstance(model.only_input, TokenInput) else None
        examples = TextExamples(found.texts("input"), labels, tokenizer, told or config.max_length)
    else:
        examples = FileExamples(found.files("input"), labels, file_reader(model.config))
    with _progress(len(examples), examples.what) as advance:
        judged = judge_classifier(model, examples, batch_size=batch_size, on_batch=advance)
    out.print(
        f"accuracy     {judged.accuracy:.4f}  (always the most frequent label: {majority(labels):.4f})\n"
        f"loss         {judged.loss:.4f} nats\n"
        f"measured on  {judged.count:,} {examples.what}",
        highlight=False,
        soft_wrap=True,
    )


@contextmanager
def _progress(total: int, what: str) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal's stderr; elsewhere nothing."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("", total=total)
        yield lambda count: bar.advance(task, count)
