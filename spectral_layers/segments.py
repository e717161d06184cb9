"""Sequences processed in segments, so that activations fit the cache.

Linear layers and elementwise passes over a whole sequence are bound by memory traffic and page faults. In evaluation on
a CPU, parts that are tokenwise or recurrent therefore run all their steps on a few hundred tokens at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from spectral_core.memory import unwritten
from spectral_kernels.tracing import readable

_TOKENS = 512
"""Tokens of all rows in a segment: with a thousand channels, their features fit the L2 cache of two cores."""
_FEWEST = 64
"""Fewest tokens of a row in a segment: for fewer, the overhead of calls exceeds the matrix products."""


def segment_tokens(x: Tensor) -> int | None:
    """Tokens of a row of x (B, ...) in a segment.

    None, so that sequences are not divided, with gradients, in a traced graph, under torch.func, and on a GPU.
    """
    if torch.is_grad_enabled() or not readable(x):
        return None
    return max(_FEWEST, _TOKENS // max(1, x.shape[0]))


def segments(x: Tensor, *, most: int | None = None) -> list[slice]:
    """Consecutive slices of the time of x (B, L, D), of at most :func:`segment_tokens` tokens.

    most: a further limit, which always holds.
    """
    length = x.shape[1]
    limits = [limit for limit in (most, segment_tokens(x)) if limit is not None]
    if not limits:
        return [slice(0, length)]
    step = min(length, *limits)
    return [slice(start, min(length, start + step)) for start in range(0, length, step)]


def joined(pieces: Iterable[Tensor], length: int, *, dim: int) -> Tensor:
    """Concatenates pieces along an axis; ``length`` is the sum of their lengths.

    Without gradients each piece is copied into the result before the next is computed, so that one exists at a time.
    """
    if torch.is_grad_enabled():
        listed = list(pieces)
        return listed[0] if len(listed) == 1 else torch.cat(listed, dim)
    whole, done = None, 0
    for piece in pieces:
        steps = piece.shape[dim]
        if steps == length:
            whole = piece
        elif whole is None:
            shape = list(piece.shape)
            shape[dim] = length
            whole = unwritten(shape, piece)
        if whole is not piece:
            whole.narrow(dim, done, steps).copy_(piece)
        done += steps
    assert whole is not None
    assert done == length
    return whole


def tokenwise(function: Callable[[Tensor], Tensor], x: Tensor, *, most: int | None = None) -> Tensor:
    """function(x) in segments, for a tokenwise function from (B, L, D) to (B, L, E)."""
    return joined((function(x[:, here]) for here in segments(x, most=most)), x.shape[1], dim=1)
