"""Sequences taken in segments, so that what is made of a token on the way stays in the cache.

Linear layers and elementwise passes over a whole sequence wait for memory: for its traffic, and for the system to map
it. In evaluation on a CPU, parts that treat tokens one by one, or carry a state from one to the next, therefore do all
their steps on a few hundred tokens before they go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from spectral_core.memory import unwritten
from spectral_kernels.tracing import readable

_TOKENS = 512
"""Tokens of all rows in a segment: their features of a thousand channels fit the L2 of two cores."""
_FEWEST = 64
"""Tokens of a row in a segment at least: smaller matrix products are not worth their calls."""


def segment_tokens(x: Tensor) -> int | None:
    """Tokens of a row of x (B, ...) in a segment.

    None where sequences stay whole: gradients are recorded, a graph is traced, torch.func is at work, or on a GPU.
    """
    if torch.is_grad_enabled() or not readable(x):
        return None
    return max(_FEWEST, _TOKENS // max(1, x.shape[0]))


def segments(x: Tensor, *, most: int | None = None) -> list[slice]:
    """The time of x (B, L, D) in order, in one segment where :func:`segment_tokens` says so.

    most: tokens of a row in a segment at most, wherever it is.
    """
    length = x.shape[1]
    limits = [limit for limit in (most, segment_tokens(x)) if limit is not None]
    if not limits:
        return [slice(0, length)]
    step = min(length, *limits)
    return [slice(start, min(length, start + step)) for start in range(0, length, step)]


def joined(pieces: Iterable[Tensor], length: int, *, dim: int) -> Tensor:
    """Pieces of ``length`` steps in all, one behind the other along an axis.

    Without gradients a piece is copied to its place, and let go, before the next is made.
    """
    if torch.is_grad_enabled():
        made = list(pieces)
        return made[0] if len(made) == 1 else torch.cat(made, dim)
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
    """function(x), of a function that treats every token of x (B, L, D) by itself and returns (B, L, E)."""
    return joined((function(x[:, here]) for here in segments(x, most=most)), x.shape[1], dim=1)
