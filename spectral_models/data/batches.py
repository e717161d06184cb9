"""Labelled examples as batches: shuffled anew each epoch, those of like length together, padding on the right."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from spectral_models.data.labelled import Labelled
from spectral_models.data.readers import File, Reader
from spectral_models.data.tokenizer import Tokenizer

Example = dict[str, Tensor]
_BATCHES = 50  # how many are sorted by length at a time


class LabelledExamples(Dataset[Example]):
    """Item i is example i: its ``inputs``, (L,) or (C, H, W), and its label (). what: they are, in the plural."""

    what: str

    def __init__(self, labels: list[int]) -> None:
        self.labels = torch.tensor(labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Example:
        return {"inputs": self.inputs(index), "labels": self.labels[index]}

    @abstractmethod
    def inputs(self, index: int) -> Tensor:
        """What the model reads of example i."""

    @abstractmethod
    def lengths(self) -> Tensor:
        """(N,): how long the inputs are along their last axis."""


class LabelledTokens(LabelledExamples):
    """Texts: their first ``max_length`` tokens each, all of them where it is None."""

    what = "texts"

    def __init__(self, data: Labelled[str], tokenizer: Tokenizer, max_length: int | None) -> None:
        super().__init__(data.labels)
        # A tokenizer may make nothing of a text; token 0 then stands for it, for a row needs a token.
        self.tokens = [
            torch.tensor(ids[:max_length] or [0], dtype=torch.int32) for ids in tokenizer.encode_each(data.items)
        ]

    def inputs(self, index: int) -> Tensor:
        return self.tokens[index].long()

    def lengths(self) -> Tensor:
        return torch.tensor([len(ids) for ids in self.tokens])


class LabelledFiles(LabelledExamples):
    """Images or audio, read when they are asked for: none is kept.

    Each is also read once at first, so that a file which does not fit is an error before anything is computed.
    """

    def __init__(self, data: Labelled[File], reader: Reader) -> None:
        """reader: where it takes images of any size, they are to have that of the first."""
        super().__init__(data.labels)
        self.files = data.items
        self.reader = reader.like(data.items[0])
        self.what = f"{reader.what}s"
        self._lengths = torch.tensor([self.reader(file).shape[-1] for file in self.files])

    def inputs(self, index: int) -> Tensor:
        return self.reader(self.files[index])

    def lengths(self) -> Tensor:
        return self._lengths


class ShuffledBatches(Dataset[Example]):
    """``steps`` batches, one example after another; item i is a function of (seed, i) alone.

    An epoch goes through all examples in random order, with a few again to fill its last batch. Within fifty batches
    examples are sorted by length, for batches to hold little padding, and the batches are shuffled.
    """

    def __init__(self, examples: LabelledExamples, batch_size: int, steps: int, seed: int) -> None:
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
    """A batch, its inputs and labels (B,): images (B, C, H, W); sequences (B, L), with attention_mask (B, L)."""
    inputs = [example["inputs"] for example in examples]
    labels = torch.stack([example["labels"] for example in examples])
    if inputs[0].dim() > 1:
        return {"inputs": torch.stack(inputs), "labels": labels}
    mask = [torch.ones_like(row, dtype=torch.long) for row in inputs]
    return {
        "inputs": pad_sequence(inputs, batch_first=True),
        "attention_mask": pad_sequence(mask, batch_first=True),
        "labels": labels,
    }
