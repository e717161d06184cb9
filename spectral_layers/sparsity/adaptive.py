"""Keeps a fixed share of the bins, selected for each input."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import nn

from spectral_core.config import Scale, Width
from spectral_layers.bands import across_bands, band_means, hats
from spectral_layers.context import GateContext
from spectral_layers.gates.base import Modulation, SpectralView
from spectral_layers.sparsity.base import Sparsity, SparsityConfig, selection
from spectral_layers.sparsity.top_k import top_k


class AdaptiveConfig(SparsityConfig):
    """The bins of highest learned score in each input; their share is fixed."""

    type: Literal["adaptive"] = "adaptive"
    share: float = Field(default=0.125, gt=0, le=1)
    """Share of the bins that is kept; at least one bin."""
    bands: Width = Field(default=8, ge=2)
    """Bands from 0 to half a cycle per token, on which scores are learned."""
    temperature: Scale = 1.0
    """Temperature of the straight-through gradient, in units of the score."""


class Adaptive(Sparsity[AdaptiveConfig]):
    """Keeps a share of bins, those of highest score per sample and head: top_k(score_h(f)), sampled in training.

    score_h(f) = sharpness_h(f) log p(f) + bias_h(f) + sum_j W_hj(f) log P_j: p is the power of the bin over the head's
    channels, relative to the mean over bins, and P that of ``bands`` bands; sharpness, bias and W are learned on the
    bands and interpolated linearly. Initially the strongest bins are kept. O(F (bands + log F)).
    """

    def setup(self, config: AdaptiveConfig, context: GateContext) -> None:
        heads, bands = context.heads, config.bands
        self.sharpness = nn.Parameter(torch.ones(heads, bands))
        self.bias = nn.Parameter(torch.zeros(heads, bands))
        self.weight = nn.Parameter(torch.zeros(heads, bands, bands))

    def forward(self, view: SpectralView) -> Modulation:
        # Outside autocast, because scores in half precision would tie.
        with torch.autocast(view.frequency.device.type, enabled=False):
            hat = hats(view.frequency, self.config.bands)
            sharpness, bias, weight = (
                parameter.to(hat.dtype) for parameter in (self.sharpness, self.bias, self.weight)
            )
            power = view.magnitude.square().sum(2)
            power = power / power.mean(-1, keepdim=True)  # (B, H, F)
            context = across_bands(band_means(power, hat).log(), weight) + bias
            scores = (sharpness @ hat) * power.log() + context @ hat
        kept = top_k(scores, self.config.share, temperature=self.config.temperature, draw=self.training)
        return selection(kept, view)
