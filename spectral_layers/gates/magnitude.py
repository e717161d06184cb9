"""A gate whose gain is a function of each bin's own magnitude."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from spectral_layers.context import GateContext
from spectral_layers.gates.base import Gate, GateConfig, Modulation, SpectralView


class MagnitudeConfig(GateConfig):
    """Gain of each bin from its own relative magnitude."""

    type: Literal["magnitude"] = "magnitude"


class Magnitude(Gate[MagnitudeConfig]):
    """gain = 2 sigmoid(sharpness_h log(m / rms m) + bias_h): raises strong bins over weak ones, or the reverse.

    m is the smoothed magnitude of the bin, rms m its root mean square over the channel's bins; sharpness and bias are
    learned per head. The gain does not depend on the level of the spectrum. O(F).
    """

    def setup(self, config: MagnitudeConfig, context: GateContext) -> None:
        self.sharpness = nn.Parameter(torch.full((context.heads, 1, 1), 0.5))
        self.bias = nn.Parameter(torch.zeros(context.heads, 1, 1))

    def forward(self, view: SpectralView) -> Modulation:
        gain: Tensor = 2 * torch.sigmoid(self.sharpness * view.relative_magnitude.log() + self.bias)
        return Modulation(gain=gain)
