"""A text corpus: training and held-out documents, each side joined into one sequence of tokens."""

from __future__ import annotations

import hashlib
import platform
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spectral_models.data.config import DataConfig
from spectral_models.data.documents import Documents, character_start, read_documents
from spectral_models.data.tokenizer import ByteTokenizer, Tokenizer
from spectral_models.data.windows import require_window
from spectral_models.errors import DataError

_DRAWS = 1 << 64


@dataclass(frozen=True, slots=True, eq=False)
class Corpus:
    """Training and validation tokens as integer tensors; an end token follows every document."""

    source: str
    """The source; ``stdlib`` comes with the Python version, on which results depend."""
    tokenizer: Tokenizer
    train: Tensor
    train_bytes: int
    """Size of the training text in bytes, including one byte per document for its end."""
    validation: Tensor
    validation_text: bytes
    """The held-out text, with a NUL at the end of each document: input of the reference compressor."""
    validation_bytes: int
    """Bytes of the ``validation`` tokens after the first, which no position predicts."""
    train_documents: int
    validation_documents: int
    """Held-out documents, of which ``validation`` holds no more than the config's ``validation_bytes``."""


def load_corpus(config: DataConfig, *, vocab_size: int = 256, tokenizer: Tokenizer | None = None) -> Corpus:
    """Read, split, tokenise and join the documents of a source.

    tokenizer: replaces the config's. vocab_size: size of a learned tokenizer.

    Memory: one byte per byte of text, plus the held-out text. Tokenizers other than bytes add two bytes per token, or
    four for a vocabulary of more than 65,536.

    Raises DataError if the source cannot be read, has too few documents to hold one out, or leaves less than one window
    for training, and if the tokenizer loses some of the held-out text.
    """
    documents = read_documents(config)
    try:
        train, validation = split_documents(documents.views(), fraction=config.validation_fraction, seed=config.seed)
        held_out = _first(documents, validation, config.validation_bytes)
        text = documents.only(train)
        if tokenizer is None:
            tokenizer = config.tokenizer.build(_texts(text), vocab_size=vocab_size)
        tokens = tokens_of(text, tokenizer)
        require_window(tokens, config.context)
        held_out_tokens, held_out_bytes = measured_tokens(held_out, tokenizer)
    except DataError as error:
        raise DataError(f"source {config.source!r}: {error}") from None
    return Corpus(
        source=f"stdlib of Python {platform.python_version()}" if config.source == "stdlib" else config.source,
        tokenizer=tokenizer,
        train=tokens,
        train_bytes=len(text),
        validation=held_out_tokens,
        validation_text=held_out,
        validation_bytes=held_out_bytes,
        train_documents=len(train),
        validation_documents=len(validation),
    )


def tokens_of(text: bytes | bytearray, tokenizer: Tokenizer) -> Tensor:
    """The tokens (N,) of documents that each end in a NUL, which becomes ``eos_token_id``.

    Byte tokens share the memory of a bytearray: do not change it afterwards.
    """
    if isinstance(tokenizer, ByteTokenizer):
        return torch.frombuffer(text if isinstance(text, bytearray) else bytearray(text), dtype=torch.uint8)
    tokens = array("H" if tokenizer.vocab_size <= 1 << 16 else "i")
    end = tokenizer.eos_token_id
    for ids in tokenizer.encode_each(_texts(text)):
        tokens.extend(ids)
        tokens.append(end)
    if text and not text.endswith(b"\0"):  # the last document was cut off before its end
        tokens.pop()
    return torch.from_numpy(np.frombuffer(tokens, tokens.typecode))


def _texts(text: bytes | bytearray) -> Iterator[str]:
    """The documents of a text, each ended by a NUL, which the last may lack."""
    start = 0
    while start < len(text):
        end = text.find(0, start)
        end = len(text) if end < 0 else end
        yield text[start:end].decode()
        start = end + 1


def measured_tokens(text: bytes | bytearray, tokenizer: Tokenizer) -> tuple[Tensor, int]:
    """Tokens to evaluate a model on, and the bytes of those after the first, which no position predicts.

    Byte tokens begin with the first byte. Other tokens begin with an end of document, so that every byte of the text is
    predicted and bits per byte are comparable between tokenizers. Raises DataError for a tokenizer that loses text:
    its bits per byte would be too low.
    """
    tokens = tokens_of(text, tokenizer)
    if isinstance(tokenizer, ByteTokenizer):
        return tokens, len(text) - 1
    for wanted in _texts(text):
        found = tokenizer.decode(tokenizer.encode(wanted))
        if found != wanted:
            place = next((i for i, (a, b) in enumerate(zip(found, wanted, strict=False)) if a != b), len(found))
            raise DataError(
                f"the tokenizer loses text: {wanted[place : place + 20]!r} comes back as "
                f"{found[place : place + 20]!r}, so bits per byte would be too low. "
                "Give one that keeps every byte, such as bpe."
            )
    return torch.cat([torch.tensor([tokenizer.eos_token_id], dtype=tokens.dtype), tokens]), len(text)


def sample(config: DataConfig, *, held_out: bool, limit: int) -> bytes:
    """At most ``limit`` bytes of all documents of a source, or of the held-out ones, a NUL at the end of each."""
    documents = read_documents(config)
    chosen: Iterable[int] = range(len(documents))
    if held_out:
        _, chosen = split_documents(documents.views(), fraction=config.validation_fraction, seed=config.seed)
    return _first(documents, chosen, limit)


def _first(documents: Documents, indices: Iterable[int], limit: int | None) -> bytes:
    """The documents at these indices, a NUL at the end of each, cut after ``limit`` bytes to whole characters."""
    text = bytearray()
    for index in indices:
        start, end = documents.span(index)
        # One byte beyond the limit shows whether a character ends there.
        text += documents.text[start : end + 1 if limit is None else min(end + 1, start + limit + 1 - len(text))]
        if limit is not None and len(text) > limit:
            return bytes(text[: character_start(text, limit)])
    return bytes(text)


def split_documents(
    documents: Iterable[tuple[str, bytes | memoryview]], *, fraction: float, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The indices of training documents, ascending, and of held-out documents, in the order of their draws.

    documents: names and contents. A document's draw is a number in [0, 1), a hash of the seed and its name. It is held
    out if its draw is below ``fraction``, independently of other documents. A held-out document whose text is also
    trained on is dropped. If all would be on one side, the least draw is held out, or the greatest trained on. Since
    held-out documents are ordered by draw, their first bytes are a sample of all.

    Raises DataError for fewer than two different texts.
    """
    draws, texts = array("Q"), array("Q")
    for name, content in documents:
        draws.append(int.from_bytes(hashlib.sha256(f"{seed}\0{name}".encode()).digest()[:8], "big"))
        texts.append(int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big"))
    draw = np.frombuffer(draws, np.uint64)
    different, text = np.unique(np.frombuffer(texts, np.uint64), return_inverse=True)
    latest = np.zeros(len(different), np.uint64)  # a text is held out only if all of its copies are
    np.maximum.at(latest, text, draw)
    if len(different) < 2:
        raise DataError(
            f"{len(draw)} document(s) with {len(different)} different text(s), too few to train on one and hold out "
            "another. Give at least two different documents, or one text of more than a kilobyte."
        )
    threshold = np.uint64(min(max(int(fraction * _DRAWS), int(latest.min()) + 1), int(latest.max())))
    held_out = np.flatnonzero(latest[text] < threshold)
    return np.flatnonzero(draw >= threshold), held_out[np.argsort(draw[held_out], kind="stable")]
