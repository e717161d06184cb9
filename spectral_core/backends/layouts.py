"""Three ways to transform a row of samples and back: whole, in chunks of time, or in overlapping segments.

A convolution is y = output(spectrum(x) * response(taps)), a product of complex (..., W, F) with linear maps around it.
A layout gives these maps and their adjoints, so that gradients are products too.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn import functional as F

from spectral_core.backends.base import Support, fast_length, without_autocast

_WHOLE = 16
"""Chunks up to which a transform stays whole. The library's transform of more no longer fits the cache."""
_MOST_CHUNKS = 64
"""The transform across chunks is a matrix product; for longer signals the chunks grow instead."""


class Layout(ABC):
    """The maps of one convolution of rows of ``length`` samples; a subclass writes :meth:`forward` and :meth:`inverse`.

    points: samples of a row's workspace. window: those of one transform. bins: (W, F) of a response. fewest_rows: rows
    that a block should have, whatever their size.
    """

    bins: tuple[int, int]
    fewest_rows = 1

    def __init__(self, length: int, support: Support, points: int) -> None:
        self.length = length
        self.support = support
        self.points = self.window = points

    @abstractmethod
    def forward(self, x: Tensor, at: int = 0) -> Tensor:
        """Bins (..., W, F) of x placed at that sample."""

    @abstractmethod
    def inverse(self, spectrum: Tensor, at: int, length: int) -> Tensor:
        """Samples [at, at + length)."""

    def spectrum(self, x: Tensor) -> Tensor:
        """Samples (..., L) to bins (..., W, F)."""
        return self.forward(x)

    def output(self, spectrum: Tensor) -> Tensor:
        """The convolution's samples (..., L) from the product of spectrum and response."""
        return self.inverse(spectrum, self.support.offset, self.length)

    def turned(self, grad: Tensor) -> Tensor:
        """Bins (..., W, F) of a gradient (..., L) of the output."""
        return self.forward(grad, self.support.offset)

    def source(self, spectrum: Tensor) -> Tensor:
        """The gradient (..., L) of the samples, from the product of ``turned`` and the conjugate response."""
        return self.inverse(spectrum, 0, self.length)

    def response(self, taps: Tensor) -> Tensor:
        """Bins (..., *bins) of the taps that take part."""
        return self.forward(taps)

    def taps(self, spectrum: Tensor) -> Tensor:
        """The gradient of the taps (..., at least as many), from ``turned`` times the conjugate spectrum."""
        return self.inverse(spectrum, 0, self.points)


class Whole(Layout):
    """One real transform of all points. Holds buffers, so each thread needs one of its own."""

    fewest_rows = 8  # torch plans the transform anew at every call

    def __init__(self, length: int, support: Support) -> None:
        super().__init__(length, support, support.points)
        self.bins = 1, support.points // 2 + 1
        self._padded: dict[tuple[torch.Size, int], Tensor] = {}

    def forward(self, x: Tensor, at: int = 0) -> Tensor:
        # The zeros around x are written once for all blocks of that shape.
        padded = self._padded.get((x.shape, at))
        if padded is None:
            padded = self._padded[x.shape, at] = x.new_zeros(*x.shape[:-1], self.points)
        padded[..., at : at + x.shape[-1]] = x
        return torch.fft.rfft(padded)[..., None, :]

    def inverse(self, spectrum: Tensor, at: int, length: int) -> Tensor:
        return torch.fft.irfft(spectrum[..., 0, :], n=self.points)[..., at : at + length]


class Chunked(Layout):
    """The same transform in two levels: across chunks of time as a matrix product, then in each chunk.

    Sample t = p m + s of chunk p, bin k = q + P r: X = sum_s e^(-2 pi i s r / m) [e^(-2 pi i s q / n) sum_p e^(-2 pi i
    p q / P) x]. A real signal needs q up to P / 2 only. Chunks of padding take no part in the products. Bins stay in
    the order (q, r), which does not matter to a convolution. Bailey, "FFTs in external or hierarchical memory", 1990.
    """

    def __init__(self, length: int, support: Support, chunks: int, chunk: int) -> None:
        super().__init__(length, support, chunks * chunk)
        self.bins = chunks // 2 + 1, chunk
        self._chunks = chunks
        self._chunk = chunk

    def forward(self, x: Tensor, at: int = 0) -> Tensor:
        first, last = at // self._chunk, -(-(at + x.shape[-1]) // self._chunk)
        x = F.pad(x, (at - first * self._chunk, last * self._chunk - at - x.shape[-1]))
        across, _, twiddle, _ = self._tables(x)
        with without_autocast(x.device.type):
            real, imag = torch.matmul(across[:, first:last], x.unflatten(-1, (-1, self._chunk))).chunk(2, -2)
        return torch.fft.fft(torch.complex(real, imag).mul_(twiddle))

    def inverse(self, spectrum: Tensor, at: int, length: int) -> Tensor:
        first, last = at // self._chunk, -(-(at + length) // self._chunk)
        _, back, _, untwiddle = self._tables(spectrum)
        inner = torch.fft.ifft(spectrum).mul_(untwiddle)
        with without_autocast(inner.device.type):
            samples = torch.matmul(back[first:last], torch.cat([inner.real, inner.imag], -2)).flatten(-2)
        start = at - first * self._chunk
        return samples[..., start : start + length]

    def _tables(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        double = like.dtype in (torch.float64, torch.complex128)
        return _tables(self._chunks, self._chunk, torch.float64 if double else torch.float32, like.device)


class Segmented(Layout):
    """Overlap-save, for kernels much shorter than the signal: windows that overlap by all taps but one.

    Window j of that many samples gives outputs [j step, j step + step). Oppenheim & Schafer, Discrete-Time Signal
    Processing, section 8.7.3.
    """

    def __init__(self, length: int, support: Support, window: int) -> None:
        super().__init__(length, support, window * -(-length // (window - _reach(support))))
        self.bins = 1, window // 2 + 1
        self.window = window
        self._overlap = _reach(support)
        self._step = window - self._overlap
        self._windows = -(-length // self._step)
        self._lead = self._overlap - support.offset

    def spectrum(self, x: Tensor) -> Tensor:
        whole = self._windows * self._step + self._overlap
        padded = F.pad(x, (self._lead, whole - self._lead - self.length))
        return torch.fft.rfft(padded.unfold(-1, self.window, self._step))

    def output(self, spectrum: Tensor) -> Tensor:
        return torch.fft.irfft(spectrum, n=self.window)[..., self._overlap :].flatten(-2)[..., : self.length]

    def turned(self, grad: Tensor) -> Tensor:
        chunks = F.pad(grad, (0, self._windows * self._step - self.length)).unflatten(-1, (-1, self._step))
        return torch.fft.rfft(F.pad(chunks, (self._overlap, 0)))

    def source(self, spectrum: Tensor) -> Tensor:
        windows = torch.fft.irfft(spectrum, n=self.window)
        grad = F.pad(windows[..., : self._step], (0, 0, 0, 1))
        grad[..., 1:, : self._overlap] += windows[..., self._step :]
        return grad.flatten(-2)[..., self._lead : self._lead + self.length]

    def forward(self, x: Tensor, at: int = 0) -> Tensor:
        """Of taps, which fit one window."""
        return torch.fft.rfft(x, n=self.window)[..., None, :]

    def inverse(self, spectrum: Tensor, at: int, length: int) -> Tensor:
        """Of taps: summed over windows."""
        return torch.fft.irfft(spectrum.sum(-2), n=self.window)[..., at : at + length]


def layout_of(support: Support, length: int, *, circular: bool, chunk_size: int) -> Layout:
    """The cheapest layout of a convolution, by the work of its transforms."""
    whole = Whole(length, support)
    if circular or support.points <= _WHOLE * chunk_size:
        return whole
    chunk = fast_length(max(min(chunk_size, length), -(-support.points // _MOST_CHUNKS)))
    chunks = -(-support.points // chunk)
    chunked = Chunked(length, support, chunks + chunks % 2, chunk)
    # A window gives as many outputs as it overlaps the one before, or more. Wider ones repeat less, and transform more.
    windows = {fast_length(max(chunk_size, times * _reach(support) + 1)) for times in (2, 4, 8)}
    segmented = [Segmented(length, support, window) for window in windows if 2 * window <= support.points]
    return min([chunked, *segmented], key=lambda layout: layout.points * math.log2(layout.window))


def _reach(support: Support) -> int:
    return support.last - support.first - 1


@functools.lru_cache(maxsize=16)
def _tables(chunks: int, chunk: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """DFT across chunks (2 (P/2 + 1), P), its inverse (P, 2 (P/2 + 1)), twiddles (P/2 + 1, m) and their conjugates."""
    bins = torch.arange(chunks // 2 + 1, dtype=torch.float64)
    angle = 2 * math.pi / chunks * (bins[:, None] * torch.arange(chunks, dtype=torch.float64) % chunks)
    across = torch.cat([angle.cos(), -angle.sin()])
    # A bin between DC and Nyquist stands for its conjugate too.
    weight = (2.0 - ((bins == 0) | (bins == chunks // 2)).double())[:, None] / chunks
    back = torch.cat([weight * angle.cos(), -weight * angle.sin()]).T.contiguous()
    turn = bins[:, None] * torch.arange(chunk, dtype=torch.float64) * (-2 * math.pi / (chunks * chunk))
    twiddle = torch.complex(turn.cos().to(dtype), turn.sin().to(dtype)).to(device)
    return across.to(device, dtype), back.to(device, dtype), twiddle, twiddle.conj_physical()
