"""Examples as batches: shuffled anew each epoch, those of like length together, padded on the right."""

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
"""Of N examples: numbers (N,), values (N, K), or for each a row of tokens or tags (L,)."""
_BATCHES = 50  # how many are sorted by length at a time


class Examples(Dataset[Example]):
    """Item i is example i: its ``inputs``, (L,) or (C, H, W), and its ``labels``, (), (K,) or (L,).

    items: texts, files or lists of words. what: they are, in the plural.
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
        """What the model reads of example i, by name."""

    @abstractmethod
    def lengths(self) -> Tensor:
        """(N,): how long the inputs are along their last axis."""

    def digest(self) -> str:
        """SHA-256 of texts or the contents of files, and of their labels."""
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
    """Texts: their first ``max_length`` tokens each, all of them where it is None."""

    what = "texts"

    def __init__(self, texts: Sequence[str], labels: Labels, tokenizer: Tokenizer, max_length: int | None) -> None:
        super().__init__(texts, labels)
        self.tokens = token_rows(texts, tokenizer, max_length)


class TaggedExamples(_TokenExamples):
    """Sentences: the tokens of their words (:func:`word_tokens`), and a label for each token.

    The first token of a word has the word's tag, and the others IGNORE (-100).
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
    """Images or audio, read when they are asked for: none is kept.

    Each is also read once at first, so that a file which does not fit is an error before anything is computed.
    """

    def __init__(self, files: Sequence[File], labels: Labels, reader: Reader) -> None:
        """reader: where it takes images of any size, they are to have that of the first."""
        super().__init__(files, labels)
        self.reader = reader.like(files[0])
        self.what = f"{reader.what}s"
        self._lengths = torch.tensor([self.reader(file).shape[-1] for file in files])

    def inputs(self, index: int) -> Example:
        return {"inputs": self.reader(self.items[index])}

    def lengths(self) -> Tensor:
        return self._lengths


class ModalityExamples(Examples):
    """Rows of several modalities: ``inputs.NAME`` for each that a row has.

    columns: texts, files or None where a row lacks them, by modality. readers: of the modalities that are files, by
    name; those of images without a size take that of the first.
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
            found, none = [cells[row] for row in rows], torch.zeros(len(rows))
            part: Examples
            if name in readers:
                part = FileExamples(found, none, readers[name])
                self.readers[name] = part.reader
            else:
                assert tokenizer is not None
                part = TextExamples(found, none, tokenizer, max_length)
            self._parts[name] = part, {row: place for place, row in enumerate(rows)}

    def inputs(self, index: int) -> Example:
        return {
            f"inputs.{name}": part.inputs(places[index])["inputs"]
            for name, (part, places) in self._parts.items()
            if index in places
        }

    def lengths(self) -> Tensor:
        """(N,): the sum over a row's modalities."""
        total = torch.zeros(len(self), dtype=torch.long)
        for part, places in self._parts.values():
            total[torch.tensor(list(places))] += part.lengths()
        return total


def word_tokens(words: Sequence[str], tokenizer: Tokenizer) -> list[list[int]]:
    """The tokens of each word, with a space before it but the first."""
    return tokenizer.encode_batch([f"{' ' if place else ''}{word}" for place, word in enumerate(words)])


def token_rows(
    texts: Sequence[str], tokenizer: Tokenizer, max_length: int | None, end: int | None = None
) -> list[Tensor]:
    """The first ``max_length`` tokens of each text, int32, all of them where it is None. end: a token behind each text,
    which counts.
    """
    # A tokenizer may make nothing of a text; token 0 then stands for it, for a row needs a token.
    last = [] if end is None else [end]
    return [torch.tensor([*ids, *last][:max_length] or [0], dtype=torch.int32) for ids in tokenizer.encode_each(texts)]


def _content(item: Any) -> bytes:
    """What a digest is made of."""
    if isinstance(item, File):
        return item.read("file")
    if isinstance(item, str):
        return item.encode(errors="surrogatepass")
    if item is None:
        return b""
    parts = [_content(part) for part in (item.values() if isinstance(item, dict) else item)]
    return b"".join(b"%d " % len(part) + part for part in parts)


class ShuffledBatches(Dataset[Example]):
    """``steps`` batches, one example after another; item i is a function of (seed, i) alone.

    An epoch goes through all examples in random order, with a few again to fill its last batch. Within fifty batches
    examples are sorted by length, for batches to hold little padding, and the batches are shuffled.
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

    inputs: images (B, C, H, W); sequences (B, L), with attention_mask (B, L). ``inputs.NAME`` of modalities the same,
    with ``attention_mask.NAME``, and ``present.NAME`` (B,), false where a row lacks it and zeros stand for it. What no
    row has is left out.
    labels: (B,), (B, K) floats, or (B, L) integers with IGNORE (-100) behind each row's.
    """
    labels = [example["labels"] for example in examples]
    ragged = labels[0].dim() == 1 and not labels[0].is_floating_point()
    batch = {"labels": pad_sequence(labels, True, IGNORE) if ragged else torch.stack(labels)}
    for name in dict.fromkeys(name for example in examples for name in example if name != "labels"):
        _, dot, modality = name.partition(".")
        given = [example[name] for example in examples if name in example]
        absent = torch.zeros_like(given[0] if given[0].dim() > 1 else given[0][:1])
        rows = [example.get(name, absent) for example in examples]
        if rows[0].dim() > 1:
            batch[name] = torch.stack(rows)
        else:
            mask = [
                torch.full_like(row, name in example, dtype=torch.long)
                for row, example in zip(rows, examples, strict=True)
            ]
            batch[name] = pad_sequence(rows, batch_first=True)
            batch[f"attention_mask{dot}{modality}"] = pad_sequence(mask, batch_first=True)
        if modality:
            batch[f"present.{modality}"] = torch.tensor([name in example for example in examples])
    return batch
