"""A gate that shifts phases and leaves magnitudes unchanged."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from spectral_core.config import Width
from spectral_layers.bands import across_bands, contrast, hats, log_energies
from spectral_layers.context import GateContext
from spectral_layers.gates.base import Gate, GateConfig, Modulation, SpectralView


class PhaseConfig(GateConfig):
    """Phase shift of each band, per head."""

    type: Literal["phase"] = "phase"
    bands: Width = Field(default=8, ge=2)
    """Bands from 0 to half a cycle per token."""
    from_input: bool = False
    """Add a shift that depends on the energies of the input's bands."""


class Phase(Gate[PhaseConfig]):
    """phase_h(f) = sum_b hat_b(f) (shift_hb + pi tanh(sum_j weight_hbj c_j)): an all-pass filter per head.

    Bands b are hats evenly spaced from 0 to 0.5 cycles a token; c is the :func:`contrast` of their log-energies,
    averaged over the head's channels. Without ``from_input`` there is no weight, and the shift is the same for every
    input. A shift of -2 pi d f delays by d tokens. Starts at 0. O(F bands + bands^2).

    DC and Nyquist of a real signal have no phase: there a shift scales by its cosine. A causal mixer realises phases
    approximately, and delays better than advances.
    """

    def setup(self, config: PhaseConfig, context: GateContext) -> None:
        heads, bands = context.heads, config.bands
        self.shift = nn.Parameter(torch.zeros(heads, bands))
        self.weight = nn.Parameter(torch.zeros(heads, bands, bands)) if config.from_input else None

    def forward(self, view: SpectralView) -> Modulation:
        hat = hats(view.frequency, self.config.bands)
        shift: Tensor = self.shift[None]
        if self.weight is not None:
            shift = shift + phase_shifts(contrast(log_energies(view.relative_power, hat)), self.weight)
        return Modulation(phase=(shift @ hat)[:, :, None])


def phase_shifts(energies: Tensor, weight: Tensor) -> Tensor:
    """A shift within (-pi, pi) for each band, from the energies of all: (B, H, K), weight (H, K, K) -> (B, H, K)."""
    return torch.pi * torch.tanh(across_bands(energies, weight))
