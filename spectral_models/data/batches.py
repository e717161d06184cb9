"""Examples and batches of them: reshuffled every epoch, grouped by length, padded on the right."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from spectral_models.data.readers import File, Reader
from spectral_models.data.tokenizer import Tokenizer
from spectral_models.loss import IGNORE

Example = dict[str, Tensor]
Labels = Tensor | Sequence[int] | Sequence[Sequence[int]] | Sequence[Tensor]
"""Labels of N examples: (N,) numbers, (N, K) values, or N rows of tokens or tags (L,)."""
_BATCHES = 50  # batches that are sorted by length together


class Examples(Dataset[Example]):
    """Item i is example i: its ``inputs``, (L,) or (C, H, W), and its ``labels``, (), (K,) or (L,).

    items: texts, files, lists of words, or rows of modalities. what: the plural noun for them.
    """

    what: str

    def __init__(self, items: Sequence[Any], labels: Labels) -> None:
        self.items = items
        ragged = not isinstance(labels, Tensor) and len(labels) > 0 and isinstance(labels[0], Sequence | Tensor)
        self.labels: Tensor | list[Tensor] = (
            [torch.as_tensor(row, dtype=torch.long) for row in labels] if ragged else torch.as_tensor(labels)
        )

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Example:
        return {**self.inputs(index), "labels": self.labels[index]}

    @abstractmethod
    def inputs(self, index: int) -> Example:
        """The model inputs of example i, by name."""

    @abstractmethod
    def lengths(self) -> Tensor:
        """(N,): sizes of the inputs' last axis."""

    def digest(self) -> str:
        """SHA-256 of all items, files by their contents, and labels."""
        digest = hashlib.sha256()
        for item, label in zip(self.items, self.labels, strict=True):
            content = _content(item)
            digest.update(f"{label.tolist()} {len(content)} ".encode())
            digest.update(content)
        return digest.hexdigest()


class _TokenExamples(Examples):
    tokens: list[Tensor]

    def inputs(self, index: int) -> Example:
        return {"inputs": self.tokens[index].long()}

    def lengths(self) -> Tensor:
        return torch.tensor([len(ids) for ids in self.tokens])


class TextExamples(_TokenExamples):
    """The first ``max_length`` tokens of each text; None: all."""

    what = "texts"

    def __init__(self, texts: Sequence[str], labels: Labels, tokenizer: Tokenizer, max_length: int | None) -> None:
        super().__init__(texts, labels)
        self.tokens = token_rows(texts, tokenizer, max_length)


class TaggedExamples(_TokenExamples):
    """Sentences as the tokens of their words (:func:`word_tokens`), with a label for each token.

    The first token of a word has the word's tag; the others have IGNORE (-100).
    """

    what = "sentences"

    def __init__(
        self, words: Sequence[list[str]], tags: Sequence[list[int]], tokenizer: Tokenizer, max_length: int | None
    ) -> None:
        self.tokens, labels = [], []
        for sentence, numbers in zip(words, tags, strict=True):
            pieces = word_tokens(sentence, tokenizer)
            ids = [token for piece in pieces for token in piece][:max_length]
            row = [
                IGNORE if place else number
                for piece, number in zip(pieces, numbers, strict=True)
                for place in range(len(piece))
            ]
            self.tokens.append(torch.tensor(ids or [0], dtype=torch.int32))
            labels.append(row[:max_length] or [IGNORE])
        super().__init__(words, labels)


class FileExamples(Examples):
    """Images or audio, read at each access and not cached.

    The constructor reads every file once, so that unfit files are errors before training starts.
    """

    def __init__(self, files: Sequence[File], labels: Labels, reader: Reader) -> None:
        """reader: if it has no image size, all images must have the size of the first."""
        super().__init__(files, labels)
        self.reader = reader.like(files[0])
        self.what = f"{reader.what}s"
        self._lengths = torch.tensor([self.reader(file).shape[-1] for file in files])

    def inputs(self, index: int) -> Example:
        return {"inputs": self.reader(self.items[index])}

    def lengths(self) -> Tensor:
        return self._lengths


class ModalityExamples(Examples):
    """Rows of several modalities, as ``inputs.NAME`` for each modality that the row has.

    columns: texts or files by modality, None for missing ones. readers: of the modalities in files, by name; a reader
    of images without a size takes the size of the first image.
    """

    what = "rows"

    def __init__(
        self,
        columns: Mapping[str, Sequence[Any]],
        labels: Labels,
        tokenizer: Tokenizer | None,
        max_length: int | None,
        readers: Mapping[str, Reader],
    ) -> None:
        names = list(columns)
        super().__init__([dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)], labels)
        self.readers = dict(readers)
        self._parts: dict[str, tuple[Examples, dict[int, int]]] = {}
        for name, cells in columns.items():
            rows = [row for row, cell in enumerate(cells) if cell is not None]
            if not rows:
                continue
            present, unused = [cells[row] for row in rows], torch.zeros(len(rows))
            part: Examples
            if name in readers:
                part = FileExamples(present, unused, readers[name])
                self.readers[name] = part.reader
            else:
                assert tokenizer is not None
                part = TextExamples(present, unused, tokenizer, max_length)
            self._parts[name] = part, {row: place for place, row in enumerate(rows)}

    def inputs(self, index: int) -> Example:
        return {
            f"inputs.{name}": part.inputs(places[index])["inputs"]
            for name, (part, places) in self._parts.items()
            if index in places
        }

    def lengths(self) -> Tensor:
        """(N,): sums over the modalities of a row."""
        total = torch.zeros(len(self), dtype=torch.long)
        for part, places in self._parts.values():
            total[torch.tensor(list(places))] += part.lengths()
        return total


def word_tokens(words: Sequence[str], tokenizer: Tokenizer) -> list[list[int]]:
    """The tokens of each word; all words but the first are encoded with a space in front."""
    return tokenizer.encode_batch([f"{' ' if place else ''}{word}" for place, word in enumerate(words)])


def token_rows(
    texts: Sequence[str], tokenizer: Tokenizer, max_length: int | None, end: int | None = None
) -> list[Tensor]:
    """The first ``max_length`` tokens of each text, int32; None: all.

    end: token appended to each text before it is cut. A text without tokens becomes token 0.
    """
    last = [] if end is None else [end]
    return [torch.tensor([*ids, *last][:max_length] or [0], dtype=torch.int32) for ids in tokenizer.encode_each(texts)]


def _content(item: Any) -> bytes:
    """The bytes of an item, unambiguous for nested ones."""
    if isinstance(item, File):
        return item.read("file")
    if isinstance(item, str):
        return item.encode(errors="surrogatepass")
    if item is None:
        return b""
    parts = [_content(part) for part in (item.values() if isinstance(item, dict) else item)]
    return b"".join(b"%d " % len(part) + part for part in parts)


class ShuffledBatches(Dataset[Example]):
    """The examples of ``steps`` consecutive batches; item i is a function of (seed, i) alone.

    An epoch visits all examples in random order and repeats a few to fill its last batch. To reduce padding, every
    group of fifty batches is sorted by length; the batches are then shuffled.
    """

    def __init__(self, examples: Examples, batch_size: int, steps: int, seed: int) -> None:
        self.examples, self.batch_size, self.steps, self.seed = examples, batch_size, steps, seed
        self._lengths = examples.lengths()
        self._batches = -(-len(examples) // batch_size)
        self._epoch: tuple[int, list[int]] = (-1, [])

    def __len__(self) -> int:
        return self.steps * self.batch_size

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        epoch, place = divmod(index, self._batches * self.batch_size)
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._order(epoch))
        return self.examples[self._epoch[1][place]]

    def _order(self, epoch: int) -> list[int]:
        digest = hashlib.sha256(f"{self.seed}\0{epoch}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        order = torch.randperm(len(self.examples), generator=generator)
        order = order.repeat(-(-self._batches * self.batch_size // len(order)))[: self._batches * self.batch_size]
        near = [part[self._lengths[part].argsort(stable=True)] for part in order.split(_BATCHES * self.batch_size)]
        batches = torch.cat(near).view(self._batches, self.batch_size)
        return batches[torch.randperm(self._batches, generator=generator)].flatten().tolist()


def padded(examples: Sequence[Example]) -> Example:
    """A batch of examples, padded on the right.

    inputs: images (B, C, H, W); sequences (B, L), with attention_mask (B, L). ``inputs.NAME`` of modalities likewise,
    with ``attention_mask.NAME``, and ``present.NAME`` (B,), false for rows without the modality, whose inputs are
    zeros. A modality that no row has is left out.
    labels: (B,), (B, K) floats, or (B, L) integers padded with IGNORE (-100).
    """
    labels = [example["labels"] for example in examples]
    ragged = labels[0].dim() == 1 and not labels[0].is_floating_point()
    batch = {"labels": pad_sequence(labels, True, IGNORE) if ragged else torch.stack(labels)}
    for name in dict.fromkeys(name for example in examples for name in example if name != "labels"):
        _, dot, modality = name.partition(".")
        present = torch.tensor([name in example for example in examples])
        first = next(example[name] for example in examples if name in example)
        absent = torch.zeros_like(first if first.dim() > 1 else first[:1])
        rows = [example.get(name, absent) for example in examples]
        if first.dim() > 1:
            batch[name] = torch.stack(rows)
        else:
            batch[name] = pad_sequence(rows, batch_first=True)
            mask = pad_sequence([torch.ones_like(row, dtype=torch.long) for row in rows], batch_first=True)
            batch[f"attention_mask{dot}{modality}"] = mask * present[:, None]
        if modality:
            batch[f"present.{modality}"] = present
    return batch
