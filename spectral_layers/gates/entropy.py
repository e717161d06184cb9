"""Entropy regularisation of a gate: keeps the distribution of passed energy over bands near a target entropy."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from spectral_core.config import Config, Weight
from spectral_layers.bands import band_means
from spectral_layers.gates.base import SMOOTHING, SpectralView
from spectral_layers.report import Report

_EPSILON = 1e-12
"""Added to each band's energy, so that logarithms exist and a closed gate has an even usage."""


def spectral_usage(energy: Tensor, hats: Tensor) -> Tensor:
    """Share of each band in the energy that passes a gate: (..., F), hats (K, F) -> (..., K), summing to 1.

    From the mean energy in each band, so that a flat spectrum has an even usage, whatever the bands' widths. 0 for
    bands without a bin.
    """
    used = torch.where(hats.sum(-1) > 0, band_means(energy, hats) + _EPSILON, 0.0)
    return used / used.sum(-1, keepdim=True)


def usage_entropy(usage: Tensor, hats: Tensor) -> Tensor:
    """Entropy of a usage, divided by the log of the number of bands with bins: (..., K) -> (...).

    1 if all bands are used evenly, 0 if a single one is used or exists.
    """
    entropy = -(usage * usage.clamp(min=torch.finfo(usage.dtype).tiny).log()).sum(-1)
    return entropy / _band_count(hats).log().clamp(min=math.log(2))


def _band_count(hats: Tensor) -> Tensor:
    """Number of bands with at least one bin."""
    return (hats.sum(-1) > 0).sum().to(hats.dtype)


class EntropyConfig(Config):
    """Options of the entropy regularisation."""

    target: float = Field(default=0.9, gt=0, le=1)
    """Target entropy of the usage of bands: 1 for even usage, near 0 for a single band."""
    weight: Weight = 0.01
    """Weight of the squared gap in the training loss."""
    noise: Weight = 0.1
    """Standard deviation of the noise on logits in training, per unit of entropy below the target."""
    diversity: Weight = 1.0
    """Largest shift of logits in favour of less used bands, per unit of entropy below the target."""


class EntropyRegulariser(nn.Module):
    """Keeps the entropy of spectral usage near a target, per sample and head. No parameters.

    With gap = target - entropy, of the energy that passes the learned gate:

    - diversity, always: band k's logit is shifted by diversity * relu(gap) * (1 - u_k) / (1 + u_k), with u_k its usage
      relative to an even one. Less used bands open, the others close; there is no shift once the target is reached.
    - noise, in training: logits get normal noise of standard deviation noise * relu(gap), drawn per band.
    - loss ``entropy`` = weight * gap^2, averaged over samples and heads. Above the target it lowers the entropy.
    - metrics ``entropy`` and ``entropy_gap`` (absolute value): averages over samples and heads.

    For silence (the missing past of a sequence's first block) and spans with a single band the gap is 0; averages
    leave out silence. O(F K).
    """

    def __init__(self, config: EntropyConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, view: SpectralView, energy: Tensor, hats: Tensor) -> tuple[Tensor, Report]:
        """The shift of the bands' logits (B, H, K), and a report, from the energy (B, H, F) that passes the gate."""
        audible = (view.real.square() + view.imag.square()).mean((2, 3)) > SMOOTHING**2  # (B, H)
        usage, count = spectral_usage(energy.to(hats.dtype), hats), _band_count(hats)
        entropy = usage_entropy(usage, hats)
        gap = torch.where(audible & (count > 1), self.config.target - entropy, 0.0)
        below = F.relu(gap)[..., None]
        relative = usage * count
        push = self.config.diversity * below * (1 - relative) / (1 + relative)
        if self.training and self.config.noise > 0:
            push = push + self.config.noise * below.detach() * torch.randn_like(push)

        def mean(values: Tensor) -> Tensor:
            return torch.where(audible, values, 0.0).sum() / audible.sum().clamp(min=1)

        metrics = {"entropy": mean(entropy).detach(), "entropy_gap": mean(gap.abs()).detach()}
        return push, Report(losses={"entropy": self.config.weight * mean(gap.square())}, metrics=metrics)
