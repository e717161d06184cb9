"""Implicit filter: a small sine network maps the lag to the taps of all channels."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from spectral_core.config import Scale, Width
from spectral_layers.context import FilterContext
from spectral_layers.filters.base import Filter, FilterConfig
from spectral_layers.projection import Projection


class ImplicitConfig(FilterConfig):
    """A sine network of the lag, times a decay."""

    type: Literal["implicit"] = "implicit"
    width: Width = 64
    """Width of the network's two hidden layers."""
    bands: Width = 8
    """Frequencies in the features of the lag."""
    timescale: Scale = 1024.0
    """Tokens in which the slowest channel decays by e^-1.5; the unit of the lag."""


class Implicit(Filter[ImplicitConfig]):
    """kernel[d, t] = e^(-rate_d t) (W_3 sin(0.1 w (W_2 sin(w (W_1 features(t) + b_1)) + b_2)))_d.

    features(t): t / T and sines and cosines of t at ``bands`` frequencies up to bands / T cycles a token, T the
    timescale. They depend on the lag alone, so the kernel has no length limit. w is learned per unit; the rates of
    channels are initially spread from 1.5 / T to 0.3 a token. O(L * width * (width + D)). Decoding: exact semi-relaxed
    convolution over all past inputs.

    Poli et al., "Hyena hierarchy", 2023; Sitzmann et al., "Implicit neural representations with periodic activation
    functions", 2020.
    """

    def setup(self, config: ImplicitConfig, context: FilterContext) -> None:
        channels, width, bands = context.channels, config.width, config.bands
        self.input = Projection(2 * bands + 1, width)
        self.hidden = Projection(width, width)
        self.output = Projection(width, channels, bias=False)
        self.sine_frequency = nn.Parameter(torch.full((width,), 10.0))
        rates = torch.linspace(math.log(1.5 / config.timescale), math.log(0.3), channels)
        self.log_decay = nn.Parameter(rates)

    def kernel(self, length: int) -> Tensor:
        weight = self.log_decay  # for dtype and device; parameters of the layers may be offloaded here
        lag = torch.arange(length, device=weight.device, dtype=torch.float64)
        turns = torch.linspace(1e-4, self.config.bands - 1, self.config.bands, dtype=lag.dtype, device=lag.device)
        scaled = lag[:, None] / self.config.timescale
        angle = 2 * math.pi * torch.remainder(scaled * turns, 1.0)
        features = torch.cat([scaled, torch.cos(angle), torch.sin(angle)], -1)
        # Outside autocast, which would round the arguments of the sines and the small taps of the tail.
        with torch.autocast(weight.device.type, enabled=False):
            hidden = torch.sin(self.sine_frequency * self.input(features.to(weight.dtype)))
            hidden = torch.sin(0.1 * self.sine_frequency * self.hidden(hidden))
            taps = self.output(hidden).transpose(0, 1)
        decay = torch.exp(-self.log_decay.exp()[:, None] * lag.to(weight.dtype))
        return taps * decay
