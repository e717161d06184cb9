"""Keeps the fewest bins that hold a given share of the energy."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from spectral_layers.gates.base import Modulation, SpectralView
from spectral_layers.sparsity.base import Sparsity, SparsityConfig, bin_energy, selection


class EnergyConfig(SparsityConfig):
    """The smallest set of bins that holds a share of the energy."""

    type: Literal["energy"] = "energy"
    share: float = Field(default=0.95, gt=0, lt=1)
    """Share of the energy that is kept, at least."""


class Energy(Sparsity[EnergyConfig]):
    """Keeps the smallest set of bins that holds a share of the energy, per sample and head.

    A bin passes if the stronger bins together hold less than the share. Energies are sums over the head's channels and
    both signs of the frequency, from smoothed magnitudes, so that silence has a selection too. No parameters; the
    selection has no gradient. O(F log F).
    """

    def forward(self, view: SpectralView) -> Modulation:
        energy, order = bin_energy(view).sort(dim=-1, descending=True, stable=True)
        stronger = energy.cumsum(-1) - energy
        needed = stronger < self.config.share * energy.sum(-1, keepdim=True)
        return selection(torch.zeros_like(energy).scatter(-1, order, needed.to(energy.dtype)), view)
