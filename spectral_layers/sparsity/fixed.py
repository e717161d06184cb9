"""Keeps a fixed share of the bins, the same bins for every input."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from spectral_core.config import Scale, Width
from spectral_layers.bands import hats
from spectral_layers.context import GateContext
from spectral_layers.gates.base import Modulation, SpectralView
from spectral_layers.sparsity.base import Sparsity, SparsityConfig, selection
from spectral_layers.sparsity.top_k import top_k


class FixedConfig(SparsityConfig):
    """A learned set of frequencies, the same for every input; their share is fixed."""

    type: Literal["fixed"] = "fixed"
    share: float = Field(default=0.125, gt=0, le=1)
    """Share of the bins that is kept; at least one bin."""
    bands: Width = Field(default=16, ge=2)
    """Knots of the importance over frequency."""
    temperature: Scale = 1.0
    """Temperature of the straight-through gradient, in units of the importance."""


class Fixed(Sparsity[FixedConfig]):
    """Keeps a share of bins, those of most important frequency per head: top_k(importance_h(f)).

    Importance is a learned function of frequency, linear between ``bands`` knots from 0 to half a cycle a token, and
    independent of the input. It is initialised to fall with frequency: the lowest frequencies pass. In training each
    call samples one set for all samples, in proportion to e^importance; otherwise frequencies dropped initially would
    never return. O(F log F) per call.
    """

    def setup(self, config: FixedConfig, context: GateContext) -> None:
        self.importance = nn.Parameter(torch.linspace(2.0, -2.0, config.bands).repeat(context.heads, 1))

    def forward(self, view: SpectralView) -> Modulation:
        # Outside autocast, because importances in half precision would tie.
        with torch.autocast(view.frequency.device.type, enabled=False):
            hat = hats(view.frequency, self.config.bands)
            scores: Tensor = self.importance.to(hat.dtype) @ hat
        kept = top_k(scores, self.config.share, temperature=self.config.temperature, draw=self.training)
        return selection(kept.expand(view.real.shape[0], -1, -1), view)
