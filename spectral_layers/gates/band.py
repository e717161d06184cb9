"""A gate with a gain for each frequency band."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from spectral_core.config import Width
from spectral_layers.bands import across_bands, hats, log_energies
from spectral_layers.context import GateContext
from spectral_layers.gates.base import Gate, GateConfig, Modulation, SpectralView


class BandConfig(GateConfig):
    """Gain of each band from the energies of all bands, per head."""

    type: Literal["band"] = "band"
    bands: Width = Field(default=8, ge=2)
    """Bands from 0 to half a cycle per token."""


class Band(Gate[BandConfig]):
    """Gain of each band from the energies of all bands, per head: log-energies → linear → 2 sigmoid → bins.

    Bands are hat functions evenly spaced from 0 to 0.5 cycles a token; gains are interpolated linearly to bins, so the
    response is continuous for any number of bins. Energies are relative to their mean. O(F bands + bands^2).
    """

    def setup(self, config: BandConfig, context: GateContext) -> None:
        heads, bands = context.heads, config.bands
        self.weight = nn.Parameter(torch.randn(heads, bands, bands) * bands**-0.5)
        self.bias = nn.Parameter(torch.zeros(heads, bands))

    def forward(self, view: SpectralView) -> Modulation:
        hat = hats(view.frequency, self.config.bands)
        energies = log_energies(view.relative_power, hat)
        gain: Tensor = 2 * torch.sigmoid(across_bands(energies, self.weight) + self.bias)
        return Modulation(gain=(gain @ hat)[:, :, None])
