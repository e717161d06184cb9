"""Synthetic sequence-to-sequence tasks: reversing and sorting."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from spectral_models.errors import DataError
from spectral_models.loss import IGNORE

SequenceTask = Literal["reverse", "sort"]


def sequences_batch(
    batch: int,
    *,
    task: SequenceTask,
    symbols: int,
    generator: torch.Generator,
    shortest: int = 4,
    longest: int = 32,
) -> tuple[Tensor, Tensor, Tensor]:
    """Random symbols, and as target the same symbols backwards or in ascending order.

    Symbols are the tokens from 1 to ``symbols`` and may repeat; token 0 ends a target and fills the padding. Each row
    has a random length from ``shortest`` to ``longest``, padded on the right to ``longest``.

    Returns (input_ids (batch, longest), attention_mask, labels (batch, longest + 1)), on the generator's device. Labels
    are the target, a 0 that ends it, then -100.
    """
    if task not in get_args(SequenceTask):
        raise DataError(f"no task on sequences is called {task!r}: they are {', '.join(get_args(SequenceTask))}.")
    if batch < 1 or symbols < 1 or not 1 <= shortest <= longest:
        raise DataError(
            f"a batch of {batch} sequences of {symbols} symbols and {shortest} to {longest} tokens: at least 1 of "
            "each, and no longest below the shortest."
        )
    device = generator.device
    lengths = torch.randint(shortest, longest + 1, (batch, 1), generator=generator, device=device)
    places = torch.arange(longest + 1, device=device)
    mask = places[:-1] < lengths
    drawn = torch.randint(1, symbols + 1, (batch, longest), generator=generator, device=device)
    if task == "reverse":
        target = drawn.gather(1, (lengths - 1 - places[:-1]).clamp(min=0))
    else:
        target = drawn.masked_fill(~mask, symbols + 1).sort(1).values
    labels = torch.full((batch, longest + 1), IGNORE, device=device)
    labels[:, :-1][mask] = target[mask]
    labels[places == lengths] = 0
    return drawn.masked_fill(~mask, 0), mask, labels
