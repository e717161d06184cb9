"""What the commands that read texts, images or audio are given, as batches for a model of one input."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from spectral_core import ConfigError
from spectral_models.cli.console import errors
from spectral_models.data import Tokenizer
from spectral_models.data.readers import File, file_reader
from spectral_models.data.utf8 import checked, lines, pieces
from spectral_models.inputs import InputSpec, TokenInput
from spectral_models.model import SpectralModel

_BATCH = 32


@dataclass(frozen=True)
class Batch:
    """Some of what was given, in its order, and what to call it. attention_mask: of texts, padded on the right."""

    names: list[str]
    inputs: dict[str, Tensor]
    attention_mask: Tensor | None = None


def read_items(given: list[str], file: Path | None) -> list[str]:
    """The texts, or the paths of images and audio: arguments, or the lines of a file (``-``: the standard input)."""
    if bool(given) == (file is not None):
        raise ConfigError(
            "give what to read, or --file FILE with one on each line (- for the standard input)"
            + (", not both." if given else ".")
        )
    if file is None:
        items = given
    else:
        found = checked([_standard_input()], "the standard input") if str(file) == "-" else pieces(file)
        items = [line.removesuffix("\r") for line in lines(found)]
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


def batches(model: SpectralModel, spec: InputSpec, tokenizer: Tokenizer, items: list[str]) -> Iterator[Batch]:
    """Texts, some at a time; images and audio, which are paths, one by one. All as training has read them.

    spec: the model's one input. Texts are cut where training cut them, or where the model ends, and stderr says how
    many were. Raises DataError for files that are missing or of another kind, for another size or sample rate, and for
    a model that reads neither texts nor files.
    """
    if isinstance(spec, TokenInput):
        yield from _texts(tokenizer, items, spec)
        return
    reader = file_reader(model.config)
    for item in items:
        yield Batch([_printable(item)], {spec.name: reader(File.at(item))[None]})


def _texts(tokenizer: Tokenizer, items: list[str], spec: TokenInput) -> Iterator[Batch]:
    told = spec.max_length
    longest = min((length for length in (told, spec.length_limit) if length is not None), default=None)
    cut = 0
    for start in range(0, len(items), _BATCH):
        texts = items[start : start + _BATCH]
        # As bytes that need not be text: an argument may hold any.
        encoded = [tokenizer.encode(text.encode(errors="surrogateescape")) for text in texts]
        for text, ids in zip(texts, encoded, strict=True):
            if not ids:
                raise ConfigError(f"the model's tokenizer makes nothing of the text {text!r}. Leave it out.")
        rows = [torch.tensor(ids[:longest]) for ids in encoded]
        cut += sum(len(ids) > len(row) for ids, row in zip(encoded, rows, strict=True))
        mask = pad_sequence([torch.ones_like(ids) for ids in rows], batch_first=True)
        yield Batch(list(map(_printable, texts)), {spec.name: pad_sequence(rows, batch_first=True)}, mask)
    if cut:
        why = "the model was trained on no more of a text" if longest == told else "the model's parts take no more"
        errors.print(
            f"{cut} of {len(items)} texts were cut after {longest} tokens: {why}", highlight=False, soft_wrap=True
        )


def _printable(text: str) -> str:
    """An argument's bytes that are not UTF-8 as U+FFFD."""
    return text.encode(errors="surrogateescape").decode(errors="replace")
