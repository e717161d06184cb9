"""``spectral classify``: labels, tags or numbers for texts, images and recordings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
import typer
from rich.table import Table
from rich.text import Text
from torch import Tensor

from spectral_core import ConfigError
from spectral_layers import fixed_weights
from spectral_models.checkpoint import load_checkpoint, load_tokenizer
from spectral_models.cli.console import out
from spectral_models.cli.inputs import batches, read_items
from spectral_models.errors import not_numbers
from spectral_models.labels import LabelSet, Problem

_SHOWN = 3
_LIKELY = 0.5


def classify(
    checkpoint: Path = typer.Argument(help="A classifier's checkpoint directory, or a run's."),
    items: list[str] | None = typer.Argument(
        None, metavar="TEXT", help="Texts; or paths of images, or of WAV files; or of several inputs JSON objects."
    ),
    file: Path | None = typer.Option(None, help="One text, path or object on each line, instead; - for stdin."),
    as_json: bool = typer.Option(False, "--json", help="A line of JSON for each, with all labels, for scripts."),
) -> None:
    """Label texts, images or audio with a trained classifier; or tag their words, or predict numbers.

    Files go in as in training, by what the checkpoint says: pixels by its mean
    and deviation, images of its size, audio of its sample rate. Nothing is
    resized or resampled. Texts are cut where training cut them.

      spectral classify runs/sentiment "a fine film" "nothing in it"

      spectral classify runs/sentiment --file reviews.txt --json

      spectral classify runs/digits seven.png

      spectral classify runs/posts '{"text": "a day out", "image": "lake.png"}'

    Of sets of labels, those of probability 0.5 or more are printed; of words, a
    word and its tag on each line, and a blank line behind each text.
    """
    found = read_items(items or [], file)
    model = load_checkpoint(checkpoint)
    known = model.config.label_set
    if known is None or not model.input_specs():
        raise ConfigError(
            f"{checkpoint} holds a model of type {model.config.type}: classify takes a classifier. For an encoder's "
            "embeddings: spectral embed."
        )
    table = Table("input", *_COLUMNS[known.problem], box=None, pad_edge=False, padding=(0, 2, 0, 0))
    with fixed_weights(model), torch.no_grad():
        for batch in batches(model, load_tokenizer(checkpoint), found):
            logits = model.run(batch.inputs, batch.attention_mask).logits.float()
            for row, item in enumerate(batch.names):
                own = logits[row] if known.of == "row" else logits[row, [word.token for word in batch.words[row]]]
                if own.isnan().any():
                    raise not_numbers("logits")
                if known.of == "token":
                    _tell_tags(item, [word.text for word in batch.words[row]], own, known, as_json=as_json)
                    continue
                answer = _answer(own, known)
                if as_json:
                    typer.echo(json.dumps({"input": item, **answer.fields}))
                elif out.is_terminal:
                    table.add_row(Text(item, no_wrap=True, overflow="ellipsis"), *map(Text, answer.cells))
                else:
                    typer.echo("\t".join([*answer.plain, item]))
    if table.row_count:
        out.print(table, highlight=False)


_COLUMNS: dict[Problem, tuple[str, ...]] = {
    "single_label_classification": ("label", "probability", "then"),
    "multi_label_classification": ("labels",),
    "regression": ("numbers",),
}


class _Answer(NamedTuple):
    """What a row's logits say: as JSON, as cells of a table (``_COLUMNS``), and divided by tabs."""

    fields: dict[str, Any]
    cells: list[str]
    plain: list[str]


def _answer(logits: Tensor, known: LabelSet) -> _Answer:
    names = known.names or [str(label) for label in range(known.size)]
    if known.problem == "regression":
        numbers = dict(zip(names, logits.tolist(), strict=True))
        alone = known.size == 1 and known.names is None
        told = ", ".join(f"{'' if alone else f'{name} '}{value:.4g}" for name, value in numbers.items())
        return _Answer({"numbers": numbers}, [told], [told])
    several = known.problem == "multi_label_classification"
    probabilities = (logits.sigmoid() if several else logits.softmax(-1)).tolist()
    ranked = sorted(zip(names, probabilities, strict=True), key=lambda pair: -pair[1])
    if several:
        likely = [(name, share) for name, share in ranked if share >= _LIKELY]
        told = ", ".join(f"{name} {share:.3f}" for name, share in likely) or "none"
        return _Answer({"labels": [name for name, _ in likely], "probabilities": dict(ranked)}, [told], [told])
    (label, probability), *others = ranked
    then = "  ".join(f"{name} {share:.3f}" for name, share in others[: _SHOWN - 1])
    first = [label, f"{probability:.3f}"]
    return _Answer({"label": label, "probabilities": dict(ranked)}, [*first, then], first)


def _tell_tags(item: str, words: list[str], logits: Tensor, known: LabelSet, *, as_json: bool) -> None:
    tags = [known.names[label] if known.names else str(label) for label in logits.argmax(-1).tolist()]
    if as_json:
        typer.echo(json.dumps({"input": item, "words": words, "tags": tags}))
    else:
        typer.echo("".join(f"{word}\t{tag}\n" for word, tag in zip(words, tags, strict=True)))
