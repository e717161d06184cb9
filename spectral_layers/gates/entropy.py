"""Entropy regularisation of a gate: how evenly it uses the spectrum, and what to do when it does not."""

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

_NOTHING = 1e-12
"""Added to each band's energy: one that is used by nothing has a logarithm, and a gate that is shut uses all evenly."""


def spectral_usage(energy: Tensor, hats: Tensor) -> Tensor:
    """Share of each band in the energy that passes a gate: (..., F), hats (K, F) -> (..., K), summing to 1.

    By mean energy in the band, so that a flat spectrum uses all bands evenly, whatever their widths. Bands that have
    no bin have no share.
    """
    used = torch.where(hats.sum(-1) > 0, band_means(energy, hats) + _NOTHING, 0.0)
    return used / used.sum(-1, keepdim=True)


def usage_entropy(usage: Tensor, hats: Tensor) -> Tensor:
    """Entropy of a usage over the largest it can be, log of the number of bands that have bins: (..., K) -> (...).

    1 where all are used evenly, 0 where a single one is, or where there is only one.
    """
    entropy = -(usage * usage.clamp(min=torch.finfo(usage.dtype).tiny).log()).sum(-1)
    return entropy / _count(hats).log().clamp(min=math.log(2))


def _count(hats: Tensor) -> Tensor:
    return (hats.sum(-1) > 0).sum().to(hats.dtype)


class EntropyConfig(Config):
    """How evenly a gate should use the spectrum, and how it is held to that."""

    target: float = Field(default=0.9, gt=0, le=1)
    """Entropy of the usage of bands to aim at: 1 for all evenly, towards 0 for a single one."""
    weight: Weight = 0.01
    """Weight of the squared gap in the training loss."""
    noise: Weight = 0.1
    """Standard deviation of the noise on logits in training, per unit of entropy below the target."""
    diversity: Weight = 1.0
    """Largest push of logits toward bands used less, per unit of entropy below the target."""


class EntropyRegulariser(nn.Module):
    """Holds the entropy of each sample's and head's spectral usage near a target. No parameters.

    With gap = target - entropy, of the energy that passes the learned gate:

    - diversity, always: band k's logit moves by diversity * relu(gap) * (1 - u_k) / (1 + u_k), u_k its usage over an
      even one's. Bands used less than evenly open, the others close; nothing moves once the target is reached.
    - noise, in training: logits get normal noise of standard deviation noise * relu(gap), drawn per band.
    - loss ``entropy`` = weight * gap^2, averaged over samples and heads. Above the target it pulls down.
    - metrics ``entropy``, ``entropy_gap`` (of absolute values): averages over samples and heads.

    Silence (the missing past of a sequence's first block) and spans with a single band have no usage: gap is 0 there,
    and silence is left out of the averages. O(F K).
    """

    def __init__(self, config: EntropyConfig) -> None:
        super().__init__()
        self.target = config.target
        self.weight = config.weight
        self.noise = config.noise
        self.diversity = config.diversity

    def forward(self, view: SpectralView, energy: Tensor, hats: Tensor) -> tuple[Tensor, Report]:
        """What to add to the bands' logits (B, H, K), and a report, from the energy that passes: (B, H, F)."""
        heard = (view.real.square() + view.imag.square()).mean((2, 3)) > SMOOTHING**2  # (B, H)
        usage = spectral_usage(energy.to(hats.dtype), hats)
        entropy = usage_entropy(usage, hats)
        gap = torch.where(heard & (_count(hats) > 1), self.target - entropy, 0.0)
        below = F.relu(gap)[..., None]
        relative = usage * _count(hats)
        push = self.diversity * below * (1 - relative) / (1 + relative)
        if self.training and self.noise > 0:
            push = push + self.noise * below.detach() * torch.randn_like(push)

        def mean(values: Tensor) -> Tensor:
            return torch.where(heard, values, 0.0).sum() / heard.sum().clamp(min=1)

        metrics = {"entropy": mean(entropy).detach(), "entropy_gap": mean(gap.abs()).detach()}
        return push, Report(losses={"entropy": self.weight * mean(gap.square())}, metrics=metrics)
