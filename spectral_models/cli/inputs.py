"""Batches for a model from a command's texts, images and audio."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import torch
import typer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from spectral_core import ConfigError
from spectral_core.errors import shown, suggestion
from spectral_models.cli.console import errors
from spectral_models.data import Tokenizer
from spectral_models.data.batches import word_tokens
from spectral_models.data.readers import File, file_reader
from spectral_models.data.utf8 import checked, lines, pieces
from spectral_models.inputs import InputSpec, TokenInput
from spectral_models.model import SpectralModel

_BATCH = 32

ITEMS = typer.Argument(
    None, metavar="TEXT", help="Texts; paths of images or WAV files; or, for several inputs, JSON objects."
)
FILE = typer.Option(None, help="Read a text, path or object from each line of this file; - for stdin.")


class Word(NamedTuple):
    """A word of a text. token: the index of its first token."""

    text: str
    token: int


@dataclass(frozen=True)
class Batch:
    """Consecutive inputs of a command. names: of the inputs, in order. attention_mask: of texts, padded on the right.

    words: the words of each text, for models that label tokens.
    """

    names: list[str]
    inputs: dict[str, Tensor]
    attention_mask: Tensor | None = None
    words: Sequence[list[Word]] = ()


def read_items(given: list[str] | None, file: Path | None) -> list[str]:
    """Texts, or paths of images and audio: the arguments, or the lines of a file (``-``: the standard input)."""
    if bool(given) == (file is not None):
        both = ", not both" if given else ""
        raise ConfigError(f"give inputs, or --file FILE with one on each line (- for the standard input){both}.")
    items = given or []
    if file is not None:
        parts = checked([_standard_input()], "the standard input") if str(file) == "-" else pieces(file)
        items = [line.removesuffix("\r") for line in lines(parts)]
        if not items[-1]:
            items.pop()
    empty = [number for number, item in enumerate(items, start=1) if not item.strip()]
    if empty or not items:
        which = f"line {empty[0]} of {file}" if file and items else str(file or f"text {empty[0]}")
        raise ConfigError(f"{which} is empty, and there is nothing in it to read. Leave it out.")
    return items


def _standard_input() -> bytes:
    try:
        return sys.stdin.read().encode(errors="surrogateescape")
    except UnicodeDecodeError as error:
        return error.object
    except OSError as error:
        raise ConfigError(f"cannot read -: {error.strerror}.") from None


def batches(
    model: SpectralModel, tokenizer: Tokenizer, items: list[str], spec: InputSpec | None = None
) -> Iterator[Batch]:
    """Texts in batches; paths of images and audio, and JSON objects of several inputs, one at a time.

    spec: the input to read; by default the model's only one. Inputs are read as in training. Texts are cut where
    training cut them, or at the model's limit, and stderr says how many were cut. For models that label tokens, texts
    are split into words at white space. Raises DataError for files that are missing or of another kind, for another
    image size or sample rate, and for a model that reads neither texts nor files.
    """
    spec = spec or model.only_input
    cuts: Counter[str] = Counter()
    if spec is None:
        for item in items:
            yield Batch([_printable(item)], _modalities(model, tokenizer, item, cuts))
    elif isinstance(spec, TokenInput):
        for start in range(0, len(items), _BATCH):
            yield _texts(model, spec, tokenizer, items[start : start + _BATCH], cuts)
    else:
        reader = file_reader(model.config)
        for item in items:
            yield Batch([_printable(item)], {spec.name: reader(File.at(item))[None]})
    for how, count in cuts.items():
        errors.print(f"{count} of {len(items)} texts were cut {how}", highlight=False, soft_wrap=True)


def _modalities(model: SpectralModel, tokenizer: Tokenizer, item: str, cuts: Counter[str]) -> dict[str, Tensor]:
    """The inputs in a JSON object."""
    specs, readers = {spec.name: spec for spec in model.input_specs()}, model.config.readers()
    example = json.dumps(dict.fromkeys(specs, "..."))
    try:
        given = json.loads(item)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict) or not given:
        raise ConfigError(
            f"{shown(item)} is no JSON object of inputs by name, and this model reads several: {example}. Leave out "
            "missing ones."
        )
    read: dict[str, Tensor] = {}
    for name, value in given.items():
        if name not in specs:
            unknown = f"{shown(item)}: the model has no input {name!r}.{suggestion(name, list(specs))}"
            raise ConfigError(f"{unknown} Its inputs: {', '.join(specs)}.")
        if not _is_text(value):
            raise ConfigError(
                f"{shown(item)}: {name!r} is a text or the path of a file; leave it out if it is missing."
            )
        spec = specs[name]
        if isinstance(spec, TokenInput):
            ids = tokenizer.encode(value.encode(errors="surrogateescape"))
            read[name] = torch.tensor([_cut(ids, value, spec, cuts)])
        elif name in readers:
            read[name] = readers[name](File.at(value))[None]
        else:
            raise ConfigError(f"nothing here reads {name!r} of a {model.config.type}: its config has no reader for it.")
    return {name: read[name] for name in specs if name in read}


def _is_text(value: object) -> bool:
    """Whether a value is a non-empty text that tokenizers and the file system accept."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        return False
    try:
        value.encode(errors="surrogateescape")
    except UnicodeEncodeError:  # JSON can escape half of a surrogate pair
        return False
    return True


def _texts(model: SpectralModel, spec: TokenInput, tokenizer: Tokenizer, items: list[str], cuts: Counter[str]) -> Batch:
    words: list[list[Word]] = []
    rows = []
    for item in items:
        if model.config.label_set is not None and model.config.label_set.of == "token":
            texts = _printable(item).split()
            pieces = word_tokens(texts, tokenizer)
            ids = [token for piece in pieces for token in piece]
            starts = accumulate((len(piece) for piece in pieces), initial=0)
            kept = _cut(ids, item, spec, cuts)
            found = zip(texts, starts, pieces, strict=False)
            words.append([Word(text, start) for text, start, piece in found if piece and start < len(kept)])
        else:
            # An argument may hold bytes that are not UTF-8.
            kept = _cut(tokenizer.encode(item.encode(errors="surrogateescape")), item, spec, cuts)
        rows.append(torch.tensor(kept))
    mask = pad_sequence([torch.ones_like(ids) for ids in rows], batch_first=True)
    inputs = {spec.name: pad_sequence(rows, batch_first=True)}
    return Batch(list(map(_printable, items)), inputs, mask, words)


def _cut(ids: list[int], text: str, spec: TokenInput, cuts: Counter[str]) -> list[int]:
    """The tokens up to the model's limit. cuts: counts the texts that were longer, by the limit and its cause."""
    if not ids:
        raise ConfigError(f"the model's tokenizer has no tokens for the text {text!r}. Leave it out.")
    trained = spec.max_length
    longest = min((length for length in (trained, spec.length_limit) if length is not None), default=None)
    if longest is not None and len(ids) > longest:
        why = "the model was trained on no more of a text" if longest == trained else "the model's parts take no more"
        cuts[f"after {longest} tokens: {why}"] += 1
    return ids[:longest]


def _printable(text: str) -> str:
    """An argument with U+FFFD for bytes that are not UTF-8."""
    return text.encode(errors="surrogateescape").decode(errors="replace")
