"""Labelled texts as batches: shuffled anew each epoch, texts of like length together, padding on the right."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from spectral_models.data.labelled import LabelledTexts
from spectral_models.data.tokenizer import Tokenizer

Example = dict[str, Tensor]
_BATCHES = 50  # how many are sorted by length at a time


class LabelledTokens(Dataset[Example]):
    """Item i is text i: its first ``max_length`` tokens (L,) and its label ()."""

    def __init__(self, data: LabelledTexts, tokenizer: Tokenizer, max_length: int) -> None:
        encoded = tokenizer.encode_batch(data.texts)
        # A tokenizer may make nothing of a text; token 0 then stands for it, for a row needs a token.
        self.tokens = [torch.tensor(ids[:max_length] or [0], dtype=torch.int32) for ids in encoded]
        self.labels = torch.tensor(data.labels)

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> Example:
        return {"inputs": self.tokens[index].long(), "labels": self.labels[index]}

    def lengths(self) -> Tensor:
        return torch.tensor([len(ids) for ids in self.tokens])


class ShuffledBatches(Dataset[Example]):
    """``steps`` batches, one example after another; item i is a function of (seed, i) alone.

    An epoch goes through all examples in random order, with a few again to fill its last batch. Within fifty batches
    examples are sorted by length, for batches to hold little padding, and the batches are shuffled.
    """

    def __init__(self, examples: LabelledTokens, batch_size: int, steps: int, seed: int) -> None:
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
    """Inputs (B, L), attention_mask (B, L) and labels (B,) of a batch."""
    inputs = [example["inputs"] for example in examples]
    return {
        "inputs": pad_sequence(inputs, batch_first=True),
        "attention_mask": pad_sequence([torch.ones_like(ids) for ids in inputs], batch_first=True),
        "labels": torch.stack([example["labels"] for example in examples]),
    }
