"""Exact online convolution: each output as soon as its input is there, in O(log^2 L) a token instead of O(L).

The inputs so far, and what they will add to the outputs to come, are kept in buffers that grow by doubling. A binary
clock, the number of free columns, says when a block of inputs is convolved with the kernel, as one tile of a power of
two. The clock counts from the last growth, not from the start of a row, so that the rows of a batch, wherever they
stand, share their tiles.

Two classes, by when the kernel is known: :class:`OnlineFilter`, for one known ahead, is reached through
:mod:`spectral_layers.long_convolution`; :class:`OnlineProduct`, for one that arrives with the values, serves
``spectral_product``.

van der Hoeven, "Relax, but don't be too lazy", 2002; Oncescu et al., "Flash Inference: near linear time inference for
long convolution sequence models and beyond", 2024.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from spectral_core import FFTBackend, PreparedKernel, convolve, prepare_kernel
from spectral_core.backends.base import fast_length, transform_dtype
from spectral_layers.filters.base import Filter
from spectral_layers.kept import Kept, kept
from spectral_layers.rows import Rows, append, span

T = TypeVar("T")

RUN = 32
"""Tokens summed directly between tiles: below it, the calls of a transform cost more than its sums save."""


class OnlineConvolution(ABC):
    """What a convolution remembers between calls, and how it goes on.

    stored: (B, C, T) inputs, of which the last ``free`` columns are still to come. pending: (B, D, free), what tiles
    have added to the outputs of these columns so far. C is D, unless streams are stacked.

    :meth:`_grow` makes room for a power of two of columns, and fills ``pending`` with what all of the past adds there,
    in one transform. From then on, ``free`` is the clock: where w is the largest power of two that divides it, a tile
    convolves the last w inputs and adds the result to the next w outputs. So an input s and a later output t meet
    exactly once: when the clock passes between the halves of the smallest aligned interval that holds both; or, if
    both are in one run of RUN columns, in a direct sum.

    Amortised O(log^2 T) a token and channel; the past is copied at growths only. A token at a tile of w pays for a
    transform of 2w points, the one at a growth for one of two to four times the past. Memory: at most five times the
    inputs. Sums are in float32 at least. Tensors are written in place, so a state's clone needs memory of its own.
    """

    def __init__(self, fft: FFTBackend, stored: Tensor, pending: Tensor) -> None:
        self.fft = fft
        self.stored = stored
        self.pending = pending

    def extend(self, u: Tensor, start: Tensor, rows: Rows | None) -> Tensor:
        """Outputs (B, D, L), in u's dtype, for the next L inputs u (B, C, L), L >= 1.

        start: (B,) tokens before u. rows: which of u is real, if not all. Calls with rows, with gradients or longer
        than the past are one convolution over everything; others continue the tiles, in aligned powers of two.
        """
        length = u.shape[-1]
        if rows is not None or torch.is_grad_enabled() or length >= max(RUN, self._absorbed()):
            return self._restart(u, start, rows).to(u.dtype)
        self.stored = _writable(self.stored.to(u.dtype))
        self.pending = _writable(self.pending.to(transform_dtype(u.dtype)))
        outputs = []
        done = 0
        while done < length:
            if not self.pending.shape[-1]:
                self._grow(start + done)
            free, left = self.pending.shape[-1], length - done
            before = -free % RUN  # inputs in the run that is not full yet
            aligned = not before and left >= RUN
            count = min(free & -free, 1 << (left.bit_length() - 1)) if aligned else min(left, RUN - before)
            outputs.append(self._advance(u[..., done : done + count], start + done, before))
            done += count
        return torch.cat(outputs, -1).to(u.dtype)

    def _advance(self, u: Tensor, start: Tensor, before: int) -> Tensor:
        """Outputs of a piece that stays inside a run, or is an aligned power of two; and its tile."""
        count, width = u.shape[-1], self.stored.shape[-1]
        free = self.pending.shape[-1] - count
        end = width - free
        self._write(u, end - count, start)
        y = self.pending[..., :count] + self._within(self.stored[..., end - count - before : end], count)
        self.pending = self.pending[..., count:]
        if free and free % RUN == 0:
            tile = free & -free
            self.pending[..., :tile] += self._ahead(self.stored[..., end - tile : end])
        return y

    def _write(self, u: Tensor, column: int, start: Tensor) -> None:
        self.stored[..., column : column + u.shape[-1]] = u

    def _within(self, block: Tensor, count: int) -> Tensor:
        """The last ``count`` outputs of the block's causal convolution."""
        block = block.to(self.pending.dtype)
        taps = self._taps(block.shape[-1])
        if count == 1:
            return self._folded((block * taps.to(block.dtype).flip(-1)).sum(-1, keepdim=True))
        return self._folded(convolve(block, taps, backend=self.fft)[..., -count:])

    def _ahead(self, block: Tensor) -> Tensor:
        """What a block of w inputs adds to the w outputs after it, on a circle of 2w points: the wrap stays before."""
        width = block.shape[-1]
        block = F.pad(block.to(self.pending.dtype), (0, width))
        y = convolve(block, self._tile(2 * width), mode="circular", backend=self.fft)
        return self._folded(y[..., width:])

    def _folded(self, y: Tensor) -> Tensor:
        """Outputs (B, D, L) of the convolved channels (B, C, L)."""
        return y

    @abstractmethod
    def _absorbed(self) -> int:
        """Tokens of the longest row so far, of those that still count."""

    @abstractmethod
    def _taps(self, length: int) -> Tensor:
        """The kernel's head, (C, length) or (B, C, length)."""

    @abstractmethod
    def _tile(self, points: int) -> Tensor | PreparedKernel:
        """As many taps for a circle of as many points."""

    @abstractmethod
    def _grow(self, start: Tensor) -> None:
        """Make room, and let all of the past meet the outputs to come."""

    @abstractmethod
    def _restart(self, u: Tensor, start: Tensor, rows: Rows | None) -> Tensor:
        """Outputs for u by one convolution over everything. Leaves no free columns."""


class OnlineFilter(OnlineConvolution):
    """Semi-relaxed: y[t] = sum_s kernel[s] u[t-s] with a kernel known ahead.

    The kernel is a function of the lag alone, so rows of different lengths stand side by side with their ends in one
    column, zeros before the shorter ones. A filter with a ``support`` keeps that many inputs, dropping older ones at
    each growth. The kernel's head and the spectra of tiles are kept in ``kernels``, the stream's: one synthesis
    per doubling.
    """

    def __init__(
        self, long_filter: Filter, fft: FFTBackend, stored: Tensor, pending: Tensor, kernels: Kept | None = None
    ) -> None:
        super().__init__(fft, stored, pending)
        self.filter = long_filter
        self.kernels = kernels

    @classmethod
    def after(cls, long_filter: Filter, fft: FFTBackend, u: Tensor, rows: Rows | None) -> OnlineFilter:
        """Behind a first pass over u (B, D, L)."""
        made = cls(long_filter, fft, u[..., :0], u[..., :0])
        made._store(u, u.new_zeros(u.shape[0], dtype=torch.long), u.shape[-1], rows)
        return made

    def tensors(self) -> dict[str, Tensor]:
        """For a state: what the constructor takes."""
        return {"inputs": self.stored, "pending": self.pending}

    def _absorbed(self) -> int:
        return self.stored.shape[-1] - self.pending.shape[-1]

    def _taps(self, length: int) -> Tensor:
        # One synthesis for all lengths up to a run.
        most = max(length, RUN if self.filter.length_limit is None else min(RUN, self.filter.length_limit))
        return self._kept("taps", most, lambda: self.filter.kernel(most))[:, :length]

    def _tile(self, points: int) -> Tensor | PreparedKernel:
        taps = points if self.filter.length_limit is None else min(points, self.filter.length_limit)
        if torch.is_grad_enabled():
            return self.filter.kernel(taps)
        return self._kept(
            "tile",
            points,
            lambda: prepare_kernel(self.filter.kernel(taps), points, mode="circular", backend=self.fft),
        )

    def _kept(self, name: str, size: int, make: Callable[[], T]) -> T:
        """A kernel of this stream, and of all in a scope; made anew where the model was cast or moved since."""
        key = (size, self.fft.name, self.pending.dtype, self.pending.device)
        if self.kernels is None:
            return kept(self.filter, name, key, make)
        return self.kernels.get(self.filter, name, key, lambda: kept(self.filter, name, key, make))

    def _grow(self, start: Tensor) -> None:
        past = self._audible(self.stored)
        length = past.shape[-1]
        width = max(RUN, 1 << max(0, length - 1).bit_length())
        self.stored = F.pad(past, (0, width))
        self.pending = self._ahead(F.pad(past, (width - length, 0))).contiguous()

    def _restart(self, u: Tensor, start: Tensor, rows: Rows | None) -> Tensor:
        joined = torch.cat([self.stored[..., : self._absorbed()].to(u.dtype), u], -1)
        if self.filter.length_limit is not None:
            # Columns further back hold zeros: no row has that many tokens.
            joined = joined[..., max(0, joined.shape[-1] - self.filter.length_limit) :]
        kernel = self.filter.prepared(joined.shape[-1], self.fft)
        y = convolve(joined, kernel, backend=self.fft)[..., -u.shape[-1] :]
        self._store(joined, start, u.shape[-1], rows)
        return y

    def _store(self, joined: Tensor, start: Tensor, new: int, rows: Rows | None) -> None:
        if rows is not None:
            longest = max([1, *(start + rows.lengths).tolist()])
            joined = span(joined, joined.shape[-1] - new + rows.lengths - longest, longest)
        self.stored, self.pending = self._audible(joined), joined[..., :0]

    def _audible(self, past: Tensor) -> Tensor:
        """The columns a later output can hear."""
        ends = [end for end in (self.filter.support, self.filter.length_limit) if end is not None]
        return past[..., max(0, past.shape[-1] - min(ends) + 1) :] if ends else past


class OnlineProduct(OnlineConvolution):
    """Fully relaxed: y[t] = sum_s value[t-s] kernel[s], where kernel[s] arrives with value[s].

    At a growth each row b stands at its own n_b, and everything before it meets the outputs to come in one transform.
    After it, as long as no more than min n_b tokens are added, a new value meets only kernel taps from before n_b, and
    a new tap only values from before n_b: two semi-relaxed convolutions at one clock, whose kernels are the rows' own
    heads. Their channels are stacked: inputs u are (value, kernel), (B, 2D, L), and heads (kernel, value).

    Rows shorter than a run grow by one run: a new value then meets new taps too, which are written into the kernel's
    head as they come; the value's head stays as it was, so that no pair is counted twice. Spectra of heads are not
    kept: they are the sequence's own.
    """

    def __init__(self, fft: FFTBackend, heads: Tensor, stored: Tensor, pending: Tensor) -> None:
        super().__init__(fft, stored, pending)
        self.heads = heads

    @classmethod
    def after(cls, fft: FFTBackend, u: Tensor, rows: Rows | None) -> OnlineProduct:
        """Behind a first pass over u (B, 2D, L), zero where rows have ended."""
        made = cls(fft, u[..., :0], u[..., :0], u[:, : u.shape[1] // 2, :0])
        made._store(_swapped(u), u.new_zeros(u.shape[0], dtype=torch.long), rows)
        return made

    def tensors(self) -> dict[str, Tensor]:
        """For a state: what the constructor takes."""
        return {"heads": self.heads, "inputs": self.stored, "pending": self.pending}

    def extend(self, u: Tensor, start: Tensor, rows: Rows | None) -> Tensor:
        self.heads = _writable(self.heads.to(u.dtype))
        return super().extend(u, start, rows)

    def _absorbed(self) -> int:
        return self.heads.shape[-1] + self.stored.shape[-1] - self.pending.shape[-1]

    def _write(self, u: Tensor, column: int, start: Tensor) -> None:
        super()._write(u, column, start)
        if self.stored.shape[-1] == RUN:
            dim = u.shape[1] // 2
            head = self.heads[:, :dim, :RUN]
            head.copy_(append(head, u[:, dim:], start)[..., :RUN])

    def _taps(self, length: int) -> Tensor:
        return self.heads[..., :length]

    def _tile(self, points: int) -> Tensor | PreparedKernel:
        return self.heads[..., :points]

    def _folded(self, y: Tensor) -> Tensor:
        return y.unflatten(1, (2, -1)).sum(1)

    def _grow(self, start: Tensor) -> None:
        ends = start.tolist()
        shortest, longest = min(ends, default=0), max([1, *ends])
        width = max(RUN, 1 << shortest.bit_length() >> 1)
        past = self._past(start)[..., :longest]
        kernel, value = past.to(self.pending.dtype).chunk(2, 1)
        room = fast_length(2 * longest) - longest
        y = convolve(F.pad(value, (0, room)), kernel, mode="circular", backend=self.fft)
        self.pending = span(y, start, width)
        self.heads = F.pad(past, (0, max(0, width - longest)))
        self.stored = past.new_zeros(*past.shape[:2], width)

    def _restart(self, u: Tensor, start: Tensor, rows: Rows | None) -> Tensor:
        joined = append(self._past(start).to(u.dtype), _swapped(u), start)
        kernel, value = joined.chunk(2, 1)
        y = span(convolve(value, kernel, backend=self.fft), start, u.shape[-1])
        self._store(joined, start, rows)
        return y

    def _store(self, joined: Tensor, start: Tensor, rows: Rows | None) -> None:
        if rows is not None:
            joined = joined[..., : max([1, *(start + rows.lengths).tolist()])]
        self.heads, self.stored = joined, joined[..., :0]
        self.pending = joined[:, : joined.shape[1] // 2, :0]

    def _past(self, start: Tensor) -> Tensor:
        """(kernel, value) of each row from its start, (B, 2D, longest), zeros after its end."""
        new = self.stored.shape[-1] - self.pending.shape[-1]
        return append(self.heads, _swapped(self.stored[..., :new]), start - new) if new else self.heads


def _swapped(u: Tensor) -> Tensor:
    """(value, kernel) as (kernel, value), and back."""
    return u.roll(u.shape[1] // 2, 1)


def _writable(tensor: Tensor) -> Tensor:
    """A state made in inference mode cannot be written outside of it."""
    return tensor.clone() if tensor.is_inference() and not torch.is_inference_mode_enabled() else tensor
