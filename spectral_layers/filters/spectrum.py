"""Filter with free magnitude and phase on a frequency grid, projected to causal support."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spectral_core import ConfigError
from spectral_core import Spectrum as Bins
from spectral_core.backends.base import transform_dtype
from spectral_core.config import Length
from spectral_layers.context import FilterContext
from spectral_layers.filters.base import Filter, FilterConfig


class SpectrumConfig(FilterConfig):
    """Magnitude and phase on a frequency grid, projected to causal support."""

    type: Literal["spectrum"] = "spectrum"
    size: Length | None = None
    """Number of taps, and the longest sequence; null takes the model's max_seq_len."""


class Spectrum(Filter[SpectrumConfig]):
    """kernel = decay * first ``size`` taps of irfft(e^(log magnitude + i phase)) on a grid of 2 * size points.

    The free spectrum has taps at negative lags too. Keeping the first ``size`` of 2 * size taps projects it to causal
    support, and an exponential window per channel limits the ringing of the truncation. O(D size log size). Sequences
    are limited to ``size`` tokens, since there are parameters for each bin.
    """

    def setup(self, config: SpectrumConfig, context: FilterContext) -> None:
        channels, size = context.channels, config.size or context.max_seq_len
        if size is None:
            raise ConfigError(
                "the filter 'spectrum' has one parameter per position: set its size, or the model's max_seq_len."
            )
        self.fft = context.fft
        self.length_limit = self.support = self.size = size
        self.log_magnitude = nn.Parameter(torch.zeros(channels, size + 1))
        self.phase = nn.Parameter(0.02 * torch.randn(channels, size + 1))
        self.log_decay = nn.Parameter(torch.linspace(math.log(1 / size), math.log(0.5), channels))

    def kernel(self, length: int) -> Tensor:
        dtype = transform_dtype(self.phase.dtype)
        field, phase = torch.exp(self.log_magnitude.to(dtype)), self.phase.to(dtype)
        # Backends ignore the imaginary part at DC and Nyquist, which a real kernel does not have.
        response = Bins(field * torch.cos(phase), field * torch.sin(phase))
        taps = self.fft.irfft(response, 2 * self.size)[:, : self.size]
        lag = torch.arange(self.size, device=taps.device)
        taps = taps * torch.exp(-self.log_decay.exp()[:, None] * lag)
        return F.pad(taps, (0, max(0, length - self.size)))[:, :length].to(self.phase.dtype)
