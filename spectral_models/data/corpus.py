"""A corpus: documents divided into what is learned from and what is held out, each joined into one run of tokens."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from spectral_models.data.config import DataConfig
from spectral_models.data.documents import Document, character_start, load_documents
from spectral_models.data.tokenizer import ByteTokenizer, Tokenizer
from spectral_models.data.windows import require_window
from spectral_models.errors import DataError

_DRAWS = 1 << 64


@dataclass(frozen=True, slots=True, eq=False)
class Corpus:
    """Tokens to learn from and tokens to be judged on, as integer tensors; every document is followed by its end."""

    source: str
    """Where it comes from; for ``stdlib`` with the Python version, without which its numbers do not compare."""
    tokenizer: Tokenizer
    train: Tensor
    train_bytes: int
    """What ``train`` is in bytes, one for the end of each document."""
    validation: Tensor
    validation_text: bytes
    """The held-out text itself, a NUL at the end of each document: what compressors are given."""
    validation_bytes: int
    """What the tokens of ``validation`` after the first, which nothing predicts, are in bytes."""
    train_documents: int
    validation_documents: int
    """Documents held out; ``validation`` may hold fewer when ``validation_bytes`` cuts it short."""
    duplicates: int
    """Documents that were drawn to be held out and left out instead, for training has the same text."""


def load_corpus(config: DataConfig, *, vocab_size: int = 256, tokenizer: Tokenizer | None = None) -> Corpus:
    """Read, divide, tokenise and join the documents of a source.

    tokenizer: instead of what the config describes. vocab_size: the model's, for a tokenizer that is learned.

    Raises DataError when the source cannot be read, when it has too few documents to hold one out, when what is
    left for training is shorter than one window, and when the tokenizer loses some of the held-out text.
    """
    documents = load_documents(config)
    try:
        train, validation = split_documents(documents, fraction=config.validation_fraction, seed=config.seed)
        if tokenizer is None:
            texts = (document.content.decode() for document in train)
            tokenizer = config.tokenizer.build(texts, vocab_size=vocab_size)
        text = joined(train)
        tokens = tokens_of(text, tokenizer)
        require_window(tokens, config.context)
        held_out = cut(joined(validation), config.validation_bytes)
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
        duplicates=len(documents) - len(train) - len(validation),
    )


def tokens_of(text: bytes, tokenizer: Tokenizer) -> Tensor:
    """Documents that end in NULs as tokens, in which ``eos_token_id`` stands for the NUL. (N,) integers."""
    if isinstance(tokenizer, ByteTokenizer):
        return torch.frombuffer(bytearray(text), dtype=torch.uint8)
    *whole, rest = text.split(b"\0")
    end = [tokenizer.eos_token_id]
    encoded = tokenizer.encode_batch([document.decode() for document in (*whole, rest)])
    ids = chain.from_iterable([*(document + end for document in encoded[:-1]), encoded[-1]])
    return torch.tensor(list(ids), dtype=torch.int32)


def measured_tokens(text: bytes, tokenizer: Tokenizer) -> tuple[Tensor, int]:
    """Tokens to measure a model on, and how many bytes those after the first, which nothing predicts, stand for.

    Bytes begin with the first byte. Other tokens begin behind the end of a document, so that every byte of the text is
    predicted and bits per byte compare between tokenizers. Raises DataError for a tokenizer that loses some of the
    text: it would have less to predict.
    """
    tokens = tokens_of(text, tokenizer)
    if isinstance(tokenizer, ByteTokenizer):
        return tokens, len(text) - 1
    for document in text.split(b"\0"):
        found, wanted = tokenizer.decode(tokenizer.encode(document)), document.decode()
        if found != wanted:
            place = next((i for i, (a, b) in enumerate(zip(found, wanted, strict=False)) if a != b), len(found))
            raise DataError(
                f"the tokenizer loses text: {wanted[place : place + 20]!r} comes back as "
                f"{found[place : place + 20]!r}, so bits per byte would be too low. "
                "Give one that keeps every byte, such as bpe."
            )
    return torch.cat([torch.tensor([tokenizer.eos_token_id], dtype=tokens.dtype), tokens]), len(text)


def cut(text: bytes, limit: int | None) -> bytes:
    """At most that many bytes of a text, a broken last character left out."""
    return text if limit is None or limit >= len(text) else text[: character_start(text, limit)]


def split_documents(
    documents: Sequence[Document], *, fraction: float, seed: int
) -> tuple[list[Document], list[Document]]:
    """The documents to train on, in their order, and the held-out ones, in the order of their draw.

    A document's draw is a number in [0, 1) that a hash makes of the seed and its name, and it is held out when that is
    below ``fraction``: neither the order nor the presence of other documents matters. A held-out document whose text
    is also trained on is dropped. When all would fall on one side, the least draw is held out, or the greatest kept.
    Being ordered by draw, the first so many held-out bytes are a sample of all.

    Raises DataError for fewer than two different texts.
    """
    draws = {document.name: _draw(document.name, seed) for document in documents}
    assert len(draws) == len(documents), "documents need different names"
    latest: dict[bytes, int] = {}  # a text is held out only when all of its copies are
    for name, content in documents:
        latest[content] = max(draws[name], latest.get(content, 0))
    if len(latest) < 2:
        raise DataError(
            f"{len(documents)} document(s) with {len(latest)} different text(s), too few to train on one and hold out "
            "another. Give at least two different documents, or one text of more than a kilobyte."
        )
    threshold = min(max(int(fraction * _DRAWS), min(latest.values()) + 1), max(latest.values()))
    train = [document for document in documents if draws[document.name] >= threshold]
    validation = [document for document in documents if latest[document.content] < threshold]
    return train, sorted(validation, key=lambda document: draws[document.name])


def _draw(name: str, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}\0{name}".encode()).digest()[:8], "big")


def joined(documents: Iterable[Document]) -> bytes:
    """Documents as one text, a NUL at the end of each."""
    return b"".join(document.content + b"\0" for document in documents)
