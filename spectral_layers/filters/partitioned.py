"""Partitioned filter: a spectrum for each chunk of lags, and a decay over chunks for each frequency."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from spectral_core import Spectrum
from spectral_core.backends.base import transform_dtype
from spectral_core.config import Width
from spectral_layers.context import FilterContext
from spectral_layers.filters.base import Filter, FilterConfig


class PartitionedConfig(FilterConfig):
    """A spectrum per chunk of lags, with a decay over chunks for each frequency."""

    type: Literal["partitioned"] = "partitioned"
    chunk: Width = Field(default=64, ge=2)
    """Lags per chunk."""
    chunks: Width = 16
    """Number of chunks; the kernel ends after chunk * chunks lags."""


class Partitioned(Filter[PartitionedConfig]):
    """kernel[d, j C + s] = (first C taps of irfft(scale[d,j,f] W[d,j,f], 2 C))[s] for chunk j and 0 <= s < C.

    Lags are divided into ``chunks`` chunks of C = ``chunk``. Each chunk has free weights W on a grid of 2 C points;
    keeping the first C taps projects them exactly to the chunk. So each frequency has its own weight per chunk, and the
    filter is still a convolution. scale = sqrt(softmax over j of (-2 rate[d,f] j)): unit energy over the chunks at each
    frequency, decaying at a learned rate, which is initially higher for high frequencies and increases over the
    channels.

    Kernels are initialised to noise of energy about 1/100, low-passed at a corner frequency drawn for each channel, so
    that the initial noise is small beside the signal.

    Finite support, chunk * chunks lags, with two parameters per lag, and no length limit. O(D L log C). Decoding:
    semi-relaxed convolution over the last ``support`` inputs.

    Soo & Pang, "Multidelay block frequency domain adaptive filter", 1990 (partitions and their projection).
    """

    support: int

    def setup(self, config: PartitionedConfig, context: FilterContext) -> None:
        channels, chunk, chunks = context.channels, config.chunk, config.chunks
        self.fft = context.fft
        self.support = chunk * chunks
        frequency = torch.linspace(0.0, 1.0, chunk + 1)
        corner = torch.empty(channels, 1).uniform_(math.log(0.05), math.log(2.0)).exp()
        lowpass = 1 / (1 + (frequency / corner).square())
        lowpass = 0.1 * (lowpass / lowpass.square().mean(-1, keepdim=True).sqrt())[:, None]
        # A real signal's spectrum has no imaginary part at DC and Nyquist.
        self.real = nn.Parameter(lowpass * torch.randn(channels, chunks, chunk + 1))
        self.imag = nn.Parameter(lowpass[..., 1:-1] * torch.randn(channels, chunks, chunk - 1))
        self.rate = nn.Parameter(torch.linspace(0.2, 2.2, channels)[:, None] + frequency)

    def kernel(self, length: int) -> Tensor:
        chunk, chunks = self.config.chunk, self.config.chunks
        dtype = transform_dtype(self.real.dtype)
        count = min(chunks, -(-length // chunk))
        age = torch.arange(chunks, device=self.rate.device)[:, None]
        scale = torch.exp(0.5 * F.log_softmax(-2 * self.rate.to(dtype)[:, None] * age, 1))[:, :count]
        real, imag = (field[:, :count].to(dtype) for field in (self.real, F.pad(self.imag, (1, 1))))
        taps = self.fft.irfft(Spectrum(scale * real, scale * imag), 2 * chunk)[..., :chunk]
        return F.pad(taps.flatten(1), (0, length - count * chunk)).to(self.real.dtype)
