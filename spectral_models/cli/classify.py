"""``spectral classify``: labels, tags or numbers for texts, images and recordings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
import typer
from rich.text import Text
from torch import Tensor

from spectral_core import ConfigError
from spectral_layers import fixed_weights
from spectral_models.checkpoint import load_checkpoint, load_tokenizer
from spectral_models.cli.console import out, plain_table
from spectral_models.cli.inputs import FILE, ITEMS, batches, read_items
from spectral_models.errors import not_numbers
from spectral_models.labels import LabelSet, Problem

_SHOWN = 3
_LIKELY = 0.5


def classify(
    checkpoint: Path = typer.Argument(help="A classifier's checkpoint directory, or a run's."),
    items: list[str] | None = ITEMS,
    file: Path | None = FILE,
    as_json: bool = typer.Option(False, "--json", help="Print a line of JSON for each input, with all labels."),
) -> None:
    """Label texts, images or audio with a trained classifier; or tag words, or predict numbers.

    Inputs are read as in training: pixels are normalised by the checkpoint's
    mean and deviation; images must have its size, audio its sample rate, since
    nothing is resized or resampled. Texts are cut where training cut them.

      spectral classify runs/sentiment "a fine film" "nothing in it"

      spectral classify runs/sentiment --file reviews.txt --json

      spectral classify runs/digits seven.png

      spectral classify runs/posts '{"text": "a day out", "image": "lake.png"}'

    Multi-label models print the labels of probability 0.5 or more. Token
    classifiers print a word and its tag on each line, and a blank line after
    each text.
    """
    given = read_items(items, file)
    model = load_checkpoint(checkpoint)
    label_set = model.config.label_set
    if label_set is None or not model.input_specs():
        raise ConfigError(
            f"{checkpoint} holds a model of type {model.config.type}: classify takes a classifier. For an encoder's "
            "embeddings: spectral embed."
        )
    table = plain_table("input", *_COLUMNS[label_set.problem])
    with fixed_weights(model), torch.no_grad():
        for batch in batches(model, load_tokenizer(checkpoint), given):
            logits = model.run(batch.inputs, batch.attention_mask).logits.float()
            for row, item in enumerate(batch.names):
                own = logits[row] if label_set.of == "row" else logits[row, [word.token for word in batch.words[row]]]
                if own.isnan().any():
                    raise not_numbers("logits")
                if label_set.of == "token":
                    _print_tags(item, [word.text for word in batch.words[row]], own, label_set, as_json=as_json)
                    continue
                answer = _answer(own, label_set)
                if as_json:
                    typer.echo(json.dumps({"input": item, **answer.fields}))
                elif out.is_terminal:
                    table.add_row(Text(item, no_wrap=True, overflow="ellipsis"), *map(Text, answer.cells))
                else:
                    typer.echo("\t".join([*answer.plain, item]))
    if table.row_count:
        out.print(table)


_COLUMNS: dict[Problem, tuple[str, ...]] = {
    "single_label_classification": ("label", "probability", "then"),
    "multi_label_classification": ("labels",),
    "regression": ("numbers",),
}


class _Answer(NamedTuple):
    """A row's prediction as JSON, as cells of a table (``_COLUMNS``), and as tab-separated fields."""

    fields: dict[str, Any]
    cells: list[str]
    plain: list[str]


def _answer(logits: Tensor, label_set: LabelSet) -> _Answer:
    names = label_set.names or [str(label) for label in range(label_set.size)]
    if label_set.problem == "regression":
        numbers = dict(zip(names, logits.tolist(), strict=True))
        alone = label_set.size == 1 and label_set.names is None
        line = ", ".join(f"{'' if alone else f'{name} '}{value:.4g}" for name, value in numbers.items())
        return _Answer({"numbers": numbers}, [line], [line])
    several = label_set.problem == "multi_label_classification"
    probabilities = (logits.sigmoid() if several else logits.softmax(-1)).tolist()
    ranked = sorted(zip(names, probabilities, strict=True), key=lambda pair: -pair[1])
    if several:
        likely = [(name, share) for name, share in ranked if share >= _LIKELY]
        line = ", ".join(f"{name} {share:.3f}" for name, share in likely) or "none"
        return _Answer({"labels": [name for name, _ in likely], "probabilities": dict(ranked)}, [line], [line])
    (label, probability), *others = ranked
    then = "  ".join(f"{name} {share:.3f}" for name, share in others[: _SHOWN - 1])
    first = [label, f"{probability:.3f}"]
    return _Answer({"label": label, "probabilities": dict(ranked)}, [*first, then], first)


def _print_tags(item: str, words: list[str], logits: Tensor, label_set: LabelSet, *, as_json: bool) -> None:
    tags = [label_set.names[label] if label_set.names else str(label) for label in logits.argmax(-1).tolist()]
    if as_json:
        typer.echo(json.dumps({"input": item, "words": words, "tags": tags}))
    else:
        typer.echo("".join(f"{word}\t{tag}\n" for word, tag in zip(words, tags, strict=True)))
