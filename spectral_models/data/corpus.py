"""A corpus: documents divided into what is learned from and what is held out, each joined into one run of bytes."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spectral_models.data.config import DataConfig
from spectral_models.data.documents import DataError, Document, load_documents
from spectral_models.data.windows import require_window

_DRAWS = 1 << 64


@dataclass(frozen=True, slots=True, eq=False)
class Corpus:
    """Bytes to learn from and bytes to be judged on, as uint8 tensors; every document is followed by a NUL."""

    source: str
    """Where it comes from; for ``stdlib`` with the Python version, without which its numbers do not compare."""
    train: Tensor
    validation: Tensor
    train_documents: int
    validation_documents: int
    """Documents held out; ``validation`` may hold fewer when ``validation_bytes`` cuts it short."""
    duplicates: int
    """Documents that were drawn to be held out and left out instead, for training has the same text."""


def load_corpus(config: DataConfig) -> Corpus:
    """Read, divide and join the documents of a source.

    Raises DataError when the source cannot be read, when it has too few documents to hold one out, and when what is
    left for training is shorter than one window.
    """
    documents = load_documents(config)
    try:
        train, validation = split_documents(documents, fraction=config.validation_fraction, seed=config.seed)
        tokens = _joined(train)
        require_window(tokens, config.context)
    except DataError as error:
        raise DataError(f"source {config.source!r}: {error}") from None
    return Corpus(
        source=f"stdlib of Python {platform.python_version()}" if config.source == "stdlib" else config.source,
        train=tokens,
        validation=_joined(validation)[: config.validation_bytes].clone(),
        train_documents=len(train),
        validation_documents=len(validation),
        duplicates=len(documents) - len(train) - len(validation),
    )


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


def _joined(documents: Iterable[Document]) -> Tensor:
    joined = bytearray()
    for document in documents:
        joined += document.content
        joined.append(0)
    return torch.frombuffer(joined, dtype=torch.uint8)
