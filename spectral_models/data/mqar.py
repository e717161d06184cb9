"""Multi-query associative recall (MQAR), a synthetic task.

Arora et al., "Zoology: Measuring and Improving Recall in Efficient Language Models", 2023.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spectral_models.errors import DataError
from spectral_models.loss import IGNORE


def mqar_batch(
    batch: int, *, length: int, pairs: int, vocab_size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Sequences that list keys with their values and later query each key once.

    ``k₁ v₁ k₂ v₂ … kₚ vₚ`` fill the first 2·pairs positions; each key occurs again at a random one of the other
    positions, and the rest are 0. Keys are distinct tokens of [1, V/2), values any tokens of [V/2, V). Every sequence
    draws its own map, so that it cannot be memorised. The label at a query is the *value* of its key, without a shift:
    the output at the query's position is the answer. All other labels are -100.

    Returns (input_ids, labels), both (batch, length), on the generator's device. Raises DataError if the pairs do not
    fit the length or the vocabulary.
    """
    half = vocab_size // 2
    if batch < 1 or pairs < 1:
        raise DataError(f"MQAR with batch {batch} and pairs {pairs}: both must be at least 1.")
    if length < 3 * pairs:
        raise DataError(
            f"MQAR with {pairs} pairs needs a length of at least {3 * pairs} (two tokens per pair, one per query); "
            f"got {length}. Raise length or lower pairs."
        )
    if half - 1 < pairs:
        raise DataError(
            f"MQAR with {pairs} pairs needs as many keys: a vocab_size of at least {2 * (pairs + 1)}; got {vocab_size}."
        )
    device = generator.device
    keys = _distinct(batch, half - 1, pairs, generator) + 1
    values = torch.randint(half, vocab_size, (batch, pairs), generator=generator, device=device)
    positions = _distinct(batch, length - 2 * pairs, pairs, generator) + 2 * pairs
    input_ids = torch.zeros(batch, length, dtype=torch.long, device=device)
    input_ids[:, 0 : 2 * pairs : 2] = keys
    input_ids[:, 1 : 2 * pairs : 2] = values
    input_ids.scatter_(1, positions, keys)
    labels = torch.full_like(input_ids, IGNORE).scatter_(1, positions, values)
    return input_ids, labels


def _distinct(rows: int, bound: int, count: int, generator: torch.Generator) -> Tensor:
    """(rows, count): in each row distinct integers below ``bound``, in random order."""
    return torch.rand(rows, bound, generator=generator, device=generator.device).argsort(dim=1)[:, :count]
