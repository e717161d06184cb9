"""Exact online convolution: each output is computed as soon as its input arrives, in O(log^2 L) a token, not O(L).

Buffers that grow by doubling hold the inputs so far and their contributions to later outputs. Blocks of inputs, each of
a power of two, are convolved with the kernel as one tile; a binary counter, the number of free columns, schedules them.
The counter starts at the last growth, not at the start of a row, so the rows of a batch share their tiles at any
positions.

:class:`OnlineFilter` is for a kernel that is known in advance (:mod:`spectral_layers.long_convolution`),
:class:`OnlineProduct` for a kernel that arrives with the values (the mixer ``spectral_product``).

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
from spectral_layers.rows import Rows, append, span
from spectral_layers.weight_cache import WeightCache, cached

T = TypeVar("T")

RUN = 32
"""Tokens summed directly between tiles: a shorter transform would cost more than the direct sums."""


class OnlineConvolution(ABC):
    """The buffers of a convolution between calls.

    stored: (B, C, T) inputs; the last ``free`` columns are not written yet. pending: (B, D, free), the contributions so
    far to the outputs of these columns. C is D, unless streams are stacked.

    :meth:`_grow` adds a power of two of columns, and fills ``pending`` with the contribution of all past inputs, in one
    transform. From then on ``free`` counts down: with w the largest power of two that divides it, a tile convolves the
    last w inputs and adds the result to the next w outputs. So each input contributes to each later output exactly
    once: in the tile between the halves of the smallest aligned interval that contains both, or, if both are in one run
    of RUN columns, in a direct sum.

    Amortised O(log^2 T) a token and channel; the past is copied at growths only. A token at a tile of w costs a
    transform of 2w points, one at a growth a transform of two to four times the past. Memory: at most five times the
    inputs. Sums are in float32 at least. Buffers are updated in place, so cloning a state copies them.
    """

    def __init__(self, fft: FFTBackend, stored: Tensor, pending: Tensor) -> None:
        self.fft = fft
        self.stored = stored
        self.pending = pending

    def extend(self, u: Tensor, start: Tensor, rows: Rows | None) -> Tensor:
        """Outputs (B, D, L), in u's dtype, for the next L inputs u (B, C, L), L >= 1.

        start: (B,) tokens before u. rows: the real tokens of u, if not all. Calls with rows, with gradients or longer
        than the past are one convolution over past and u; others continue the tiles, in aligned powers of two.
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
            before = -free % RUN  # inputs in the incomplete run
            aligned = not before and left >= RUN
            count = min(free & -free, 1 << (left.bit_length() - 1)) if aligned else min(left, RUN - before)
            outputs.append(self._advance(u[..., done : done + count], start + done, before))
            done += count
        return torch.cat(outputs, -1).to(u.dtype)

    def _advance(self, u: Tensor, start: Tensor, before: int) -> Tensor:
        """Outputs of a piece that is within one run or is an aligned power of two; computes the tile at its end."""
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
        """The last ``count`` outputs of the block's own causal convolution."""
        block = block.to(self.pending.dtype)
        taps = self._taps(block.shape[-1])
        if count == 1:
            return self._folded((block * taps.to(block.dtype).flip(-1)).sum(-1, keepdim=True))
        return self._folded(convolve(block, taps, backend=self.fft)[..., -count:])

    def _ahead(self, block: Tensor) -> Tensor:
        """The contribution of w inputs to the next w outputs, by a circular convolution that wraps into the first w."""
        width = block.shape[-1]
        block = F.pad(block.to(self.pending.dtype), (0, width))
        y = convolve(block, self._tile(2 * width), mode="circular", backend=self.fft)
        return self._folded(y[..., width:])

    def _folded(self, y: Tensor) -> Tensor:
        """Outputs (B, D, L) of the convolved channels (B, C, L)."""
        return y

    @abstractmethod
    def _absorbed(self) -> int:
        """Stored tokens of the longest row."""

    @abstractmethod
    def _taps(self, length: int) -> Tensor:
        """The first ``length`` taps of the kernel, (C, length) or (B, C, length)."""

    @abstractmethod
    def _tile(self, points: int) -> Tensor | PreparedKernel:
        """The first ``points`` taps, for a circular convolution of ``points`` points."""

    @abstractmethod
    def _grow(self, start: Tensor) -> None:
        """Add free columns, with the contribution of all past inputs in ``pending``."""

    @abstractmethod
    def _restart(self, u: Tensor, start: Tensor, rows: Rows | None) -> Tensor:
        """Outputs for u by one convolution over past and u. Leaves no free columns."""


class OnlineFilter(OnlineConvolution):
    """Semi-relaxed convolution: y[t] = sum_s kernel[s] u[t-s] with a kernel that is known in advance.

    The kernel is a function of the lag alone, so rows of different lengths are right-aligned, with zeros before the
    shorter ones. Inputs beyond the filter's ``support`` are dropped at each growth. The stream's cache, ``kernels``,
    holds the first taps and the spectra of tiles: one synthesis per doubling.
    """

    def __init__(
        self, long_filter: Filter, fft: FFTBackend, stored: Tensor, pending: Tensor, kernels: WeightCache | None = None
    ) -> None:
        super().__init__(fft, stored, pending)
        self.filter = long_filter
        self.kernels = kernels

    @classmethod
    def after(cls, long_filter: Filter, fft: FFTBackend, u: Tensor, rows: Rows | None) -> OnlineFilter:
        """The buffers after a first pass over u (B, D, L)."""
        online = cls(long_filter, fft, u[..., :0], u[..., :0])
        online._store(u, u.new_zeros(u.shape[0], dtype=torch.long), u.shape[-1], rows)
        return online

    def tensors(self) -> dict[str, Tensor]:
        """The buffers as tensors of a state."""
        return {"inputs": self.stored, "pending": self.pending}

    def _absorbed(self) -> int:
        return self.stored.shape[-1] - self.pending.shape[-1]

    def _taps(self, length: int) -> Tensor:
        # One cached synthesis serves all lengths up to RUN.
        most = max(length, RUN if self.filter.length_limit is None else min(RUN, self.filter.length_limit))
        return self._cached("taps", most, lambda: self.filter.kernel(most))[:, :length]

    def _tile(self, points: int) -> Tensor | PreparedKernel:
        taps = points if self.filter.length_limit is None else min(points, self.filter.length_limit)
        if torch.is_grad_enabled():
            return self.filter.kernel(taps)
        return self._cached(
            "tile",
            points,
            lambda: prepare_kernel(self.filter.kernel(taps), points, mode="circular", backend=self.fft),
        )

    def _cached(self, name: str, size: int, make: Callable[[], T]) -> T:
        """A kernel from the stream's cache, else that of the ``fixed_weights`` scope; both by dtype and device."""
        key = (size, self.fft.name, self.pending.dtype, self.pending.device)
        if self.kernels is None:
            return cached(self.filter, name, key, make)
        return self.kernels.get(self.filter, name, key, lambda: cached(self.filter, name, key, make))

    def _grow(self, start: Tensor) -> None:
        past = self._relevant(self.stored)
        length = past.shape[-1]
        width = max(RUN, 1 << max(0, length - 1).bit_length())
        self.stored = F.pad(past, (0, width))
        self.pending = self._ahead(F.pad(past, (width - length, 0))).contiguous()

    def _restart(self, u: Tensor, start: Tensor, rows: Rows | None) -> Tensor:
        joined = torch.cat([self.stored[..., : self._absorbed()].to(u.dtype), u], -1)
        if self.filter.length_limit is not None:
            # Earlier columns are zero: no row has that many tokens.
            joined = joined[..., max(0, joined.shape[-1] - self.filter.length_limit) :]
        kernel = self.filter.prepared(joined.shape[-1], self.fft)
        y = convolve(joined, kernel, backend=self.fft)[..., -u.shape[-1] :]
        self._store(joined, start, u.shape[-1], rows)
        return y

    def _store(self, joined: Tensor, start: Tensor, new: int, rows: Rows | None) -> None:
        if rows is not None:
            longest = max([1, *(start + rows.lengths).tolist()])
            joined = span(joined, joined.shape[-1] - new + rows.lengths - longest, longest)
        self.stored, self.pending = self._relevant(joined), joined[..., :0]

    def _relevant(self, past: Tensor) -> Tensor:
        """The columns that affect later outputs."""
        ends = [end for end in (self.filter.support, self.filter.length_limit) if end is not None]
        return past[..., max(0, past.shape[-1] - min(ends) + 1) :] if ends else past


class OnlineProduct(OnlineConvolution):
    """Fully relaxed convolution: y[t] = sum_s value[t-s] kernel[s], where kernel[s] arrives with value[s].

    At a growth row b has n_b tokens, and the contribution of all pairs of these to later outputs is one transform. For
    the next min n_b tokens, a new value is multiplied only by taps before n_b, and a new tap only by values before n_b.
    These are two semi-relaxed convolutions with one counter, whose kernels, the heads, are the first taps and the first
    values of the row. Their channels are stacked: inputs u are (value, kernel), (B, 2D, L), heads (kernel, value).

    Rows shorter than a run grow by one run: a new value is then multiplied by new taps too, which are written into the
    kernel's head as they arrive; the value's head is not extended, so that no pair is counted twice. Spectra of heads
    are not cached, since they depend on the sequence.
    """

    def __init__(self, fft: FFTBackend, heads: Tensor, stored: Tensor, pending: Tensor) -> None:
        super().__init__(fft, stored, pending)
        self.heads = heads

    @classmethod
    def after(cls, fft: FFTBackend, u: Tensor, rows: Rows | None) -> OnlineProduct:
        """The buffers after a first pass over u (B, 2D, L), which is zero at padding."""
        online = cls(fft, u[..., :0], u[..., :0], u[:, : u.shape[1] // 2, :0])
        online._store(_swapped(u), u.new_zeros(u.shape[0], dtype=torch.long), rows)
        return online

    def tensors(self) -> dict[str, Tensor]:
        """The buffers as tensors of a state."""
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
        """(kernel, value) of each row, left-aligned: (B, 2D, longest), zeros after its end."""
        new = self.stored.shape[-1] - self.pending.shape[-1]
        return append(self.heads, _swapped(self.stored[..., :new]), start - new) if new else self.heads


def _swapped(u: Tensor) -> Tensor:
    """Swaps the halves of the channels: (value, kernel) to (kernel, value) and back."""
    return u.roll(u.shape[1] // 2, 1)


def _writable(tensor: Tensor) -> Tensor:
    """The tensor, or a copy if it is from inference mode, outside of which it cannot be written in place."""
    return tensor.clone() if tensor.is_inference() and not torch.is_inference_mode_enabled() else tensor
