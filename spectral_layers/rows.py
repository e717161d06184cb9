"""Rows of different lengths in one batch.

A model shifts every row so that its first real token is at index 0 (:class:`Alignment`); its parts see padding on the
right only, described by :class:`Rows`. The absolute position of a row is in the state that continues it, not here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from spectral_core.axes import describe
from spectral_core.errors import UnsupportedInputError
from spectral_core.trees import tree


@tree
@dataclass(frozen=True)
class Rows:
    """The lengths of the rows of a (B, L, D) batch: the first ``lengths[b]`` tokens of row b are real.

    segments: (B, L) ids of the documents packed into a row, or None. Parts that cannot separate them raise an error.
    """

    lengths: Tensor
    segments: Tensor | None = None

    def mask(self, length: int) -> Tensor:
        """(B, L) bool: True where a token is real."""
        return torch.arange(length, device=self.lengths.device) < self.lengths[:, None]

    def if_ragged(self, length: int) -> Rows | None:
        """These rows, or None if each is ``length`` long, since parts are faster without lengths.

        In an exported program, which must serve both cases, always these rows.
        """
        full = not torch.compiler.is_exporting() and bool((self.lengths == length).all())
        return None if full else self

    def by_length(self) -> Iterator[tuple[int, Tensor]]:
        """(length, (n,) indices of the rows of this length), for each length but 0."""
        for length in self.lengths.unique().tolist():
            if length:
                yield length, (self.lengths == length).nonzero()[:, 0]

    def within(self, here: slice) -> Rows:
        """The rows of a slice of time; a row that ended before it has length 0."""
        segments = None if self.segments is None else self.segments[:, here]
        return Rows((self.lengths - here.start).clamp(0, here.stop - here.start), segments)


@tree
@dataclass(frozen=True)
class Alignment:
    """Shifts left-padded rows to index 0, and outputs back to the indices of their tokens.

    columns: (B, N), the index of each row's n-th token; N is the length of the longest row. places: (B, L), the inverse
    map. Both are arbitrary at padding.
    """

    columns: Tensor
    places: Tensor
    rows: Rows

    @classmethod
    def of(cls, mask: Tensor) -> Alignment:
        """From an attention mask (B, L), nonzero at real tokens. Raises for masks with holes."""
        if mask.dim() != 2:
            raise UnsupportedInputError(f"an attention mask is (B, L); got {describe(mask)}.")
        real, length = mask != 0, mask.shape[1]
        rows = Rows(real.sum(1))
        starts, index = real.int().argmax(1)[:, None], torch.arange(length, device=mask.device)
        columns, places = (starts + index) % length, (index - starts) % length
        if torch.compiler.is_exporting():
            return cls(columns, places, rows)  # no values to check, and shapes must not depend on values
        broken = (real.gather(1, columns) != rows.mask(length)).any(1).nonzero().flatten().tolist()
        if broken:
            raise UnsupportedInputError(
                f"the attention mask has holes in rows {broken}: a row's tokens must be contiguous, "
                "with padding on its left or right only."
            )
        longest = max([1, *rows.lengths.tolist()])
        return cls(columns[:, :longest], places.clamp(max=longest - 1), rows)

    def gather(self, x: Tensor) -> Tensor:
        """(B, L, ...) -> (B, N, ...): each row from index 0, without the columns that are padding in every row."""
        return _tokens_at(x, self.columns)

    def scatter(self, x: Tensor) -> Tensor:
        """(B, N, ...) -> (B, L, ...): inverse of :meth:`gather` at real tokens; arbitrary at padding."""
        return _tokens_at(x, self.places)


def _tokens_at(x: Tensor, index: Tensor) -> Tensor:
    """(B, L, ...) at (B, N) indices of time: (B, N, ...)."""
    return x[torch.arange(x.shape[0], device=x.device)[:, None], index]


def aligned(inputs: Tensor, mask: Tensor, *, name: str) -> tuple[Tensor, Alignment]:
    """Inputs (B, L, ...) shifted by :meth:`Alignment.gather`, and the alignment that shifts outputs back.

    name: name of the inputs in error messages. Raises UnsupportedInputError for a mask of another shape or with holes.
    """
    if mask.shape != inputs.shape[:2]:
        raise UnsupportedInputError(f"the attention mask {describe(mask)} must have {name}' shape {describe(inputs)}.")
    alignment = Alignment.of(mask)
    return alignment.gather(inputs), alignment


def last(x: Tensor, rows: Rows | None, count: int) -> Tensor:
    """Each row's last ``count`` tokens: (B, L, D) -> (B, min(count, L), D)."""
    if rows is None:
        return x[:, -count:]
    index = rows.lengths[:, None] + torch.arange(-min(count, x.shape[1]), 0, device=x.device)
    return _tokens_at(x, index.clamp(min=0))


def span(x: Tensor, starts: Tensor | int, width: int) -> Tensor:
    """Columns [start, start + width) of each row of x (B, D, T), zeros outside [0, T). starts: (B,), or one for all."""
    length = x.shape[-1]
    if isinstance(starts, int):
        starts = torch.full((x.shape[0],), starts, device=x.device)
    index = starts[:, None] + torch.arange(width, device=x.device)
    inside = (index >= 0) & (index < length)
    index = index.clamp(0, max(0, length - 1))[:, None, :].expand(-1, x.shape[1], -1)
    return torch.where(inside[:, None, :], x.gather(-1, index), 0.0)


def append(past: Tensor, x: Tensor, fill: Tensor) -> Tensor:
    """The first ``fill`` (B,) columns of each row's past (B, D, T), then its x (B, D, N), then zeros: (B, D, T + N)."""
    old = torch.arange(past.shape[-1], device=x.device) < fill[:, None]
    past = F.pad(torch.where(old[:, None, :], past, 0.0), (0, x.shape[-1]))
    return past + span(x, -fill, past.shape[-1])
