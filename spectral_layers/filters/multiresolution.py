"""A few taps per octave of lag: fine resolution at small lags, coarse resolution at large ones."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from spectral_layers.context import FilterContext
from spectral_layers.filters.base import Filter, FilterConfig


class MultiresolutionConfig(FilterConfig):
    """A few taps per octave of lag."""

    type: Literal["multiresolution"] = "multiresolution"
    taps: int = Field(default=4, ge=2, le=1024)
    """Taps per octave, and of the low-pass between octaves."""
    octaves: int = Field(default=10, ge=2, le=40)
    """Octaves, at least two, since the low-pass is between them; the kernel ends after (taps - 1) 2^octaves lags."""


class Multiresolution(Filter[MultiresolutionConfig]):
    """kernel = G_0 with G_j(z) = s_j W_j(z) + H(z) G_{j+1}(z^2) over the octaves j, and G = 0 after the last.

    W_j: the ``taps`` learned taps of octave j, 2^j lags apart. H: a learned low-pass of ``taps`` taps per channel,
    shared by all octaves; it interpolates the coarser octaves, as in the synthesis bank of a wavelet transform. H is
    sqrt(2) times a softmax, so |H| <= sqrt(2): the cascade of octaves stays bounded, and a tap has the same energy at
    all scales. It is initialised to a B-spline (binomial taps). s_j = sqrt(softmax(-2 decay j)) distributes unit energy
    over the octaves, with a learned decay per channel, initially from none to a factor of e per octave.

    Finite support, (taps - 1) 2^octaves - taps + 2 lags, and no length limit; the number of parameters is logarithmic
    in the support. Work halves with every octave: O(D taps L). Decoding: semi-relaxed convolution over the last
    ``support`` inputs.

    Shi, Wang & Fox, "Sequence modeling with multiresolution convolutional memory", 2023 (taps W shared by octaves up
    to a factor, H free); Li et al., "What makes convolutional models great on long sequence modeling?", 2022.
    """

    support: int

    def setup(self, config: MultiresolutionConfig, context: FilterContext) -> None:
        channels, taps, octaves = context.channels, config.taps, config.octaves
        self.octaves = octaves
        self.support = (taps - 1) * 2**octaves - taps + 2
        self.coefficient = nn.Parameter(torch.randn(channels, octaves, taps) / math.sqrt(taps))
        self.decay = nn.Parameter(torch.linspace(0.0, 1.0, channels))
        binomial = torch.tensor([math.log(math.comb(taps - 1, tap)) for tap in range(taps)])
        self.smoothing = nn.Parameter(binomial.repeat(channels, 1))

    def kernel(self, length: int) -> Tensor:
        octave = torch.arange(self.octaves, device=self.decay.device)
        share = torch.exp(0.5 * F.log_softmax(-2 * self.decay[:, None] * octave, -1))
        weights = (share[..., None] * self.coefficient).unbind(1)
        lowpass = math.sqrt(2) * F.softmax(self.smoothing, -1)
        needed = min(length, self.support)
        taps = weights[-1]
        # Outside autocast, whose rounding errors would accumulate over the octaves.
        with torch.autocast(taps.device.type, enabled=False):
            for j in reversed(range(self.octaves - 1)):
                # Only ceil(needed / 2^j) taps of octave j affect the kernel; padding by a negative width truncates.
                width = -(-needed // 2**j)
                taps = taps[:, : -(-width // 2)]
                taps = _interpolate(taps, lowpass)
                taps = F.pad(taps, (0, width - taps.shape[-1])) + F.pad(weights[j], (0, width - weights[j].shape[-1]))
        return F.pad(taps, (0, length - taps.shape[-1]))


def _interpolate(taps: Tensor, lowpass: Tensor) -> Tensor:
    """Coefficients of H(z) G(z^2): G = taps (D, n) spaced by two, smoothed by H = lowpass (D, m)."""
    half = (lowpass.shape[-1] + 1) // 2
    phases = F.pad(lowpass, (0, lowpass.shape[-1] % 2)).unflatten(-1, (half, 2))
    # Output 2 i + p is sum_k H[2 k + p] G[i - k]: one small matrix product per channel gives both phases.
    padded, count = F.pad(taps, (half - 1, half - 1)), taps.shape[-1] + half - 1
    windows = torch.stack([padded[:, k : k + count] for k in range(half)], -1)
    return (windows @ phases.flip(1)).flatten(1)
