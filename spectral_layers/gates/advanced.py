"""The multiband gate ``advanced``: gains and phases of bands at several resolutions."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import nn
from torch.nn import functional as F

from spectral_core.config import Scale, Width
from spectral_layers.bands import across_bands, contrast, hats, log_energies
from spectral_layers.context import GateContext
from spectral_layers.gates.base import Gate, GateConfig, Modulation, SpectralView
from spectral_layers.gates.entropy import EntropyConfig, EntropyRegulariser
from spectral_layers.gates.phase import phase_shifts
from spectral_layers.report import Report

_SHARPNESS = 4.0
"""Sharpness of the threshold: a bin at half of it keeps 1/17 of its magnitude, one at double 16/17."""


class AdvancedConfig(GateConfig):
    """Multiband gains and phases, coarse to fine, with thresholds, cross-head fusion, dropout and entropy."""

    type: Literal["advanced"] = "advanced"
    resolutions: tuple[Annotated[Width, Field(ge=2)], ...] = Field(default=(4, 8, 16), min_length=1, max_length=16)
    """Numbers of bands from 0 to half a cycle per token, coarse to fine; the logits of all resolutions are added."""
    threshold: Scale | None = 0.1
    """Initial soft threshold on magnitudes, in units of the spectrum's root mean square; null for none."""
    phase_terms: Width | None = 4
    """Number of sines, and of cosines, of frequency in the learned phase; null for no phase shifts at all."""
    cross_head: bool = True
    """Mix the logits of the heads linearly."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of bands dropped in training."""
    entropy: EntropyConfig | None = None
    """Regularise the entropy of the bands' usage; null for no regularisation, {} for the defaults."""

    @model_validator(mode="after")
    def _coarse_to_fine(self) -> AdvancedConfig:
        if list(self.resolutions) != sorted(set(self.resolutions)):
            raise ValueError(f"resolutions run from coarse to fine, each once; got {list(self.resolutions)}")
        return self


class Advanced(Gate[AdvancedConfig]):
    """Gain and phase per head, from bands of several resolutions; p is the head's relative power per bin.

    ::

        c     = contrast of the log-energies of all bands of all resolutions       (B, H, K)
        z     = (1 + exchange) (weight c + bias)     weight mixes bands, exchange mixes heads
        gain  = 2 sigmoid(z on bins) * p^2 / (p^2 + threshold^4) * dropout         (B, H, 1, F)
        phase = (pi tanh(turn c)) on bins + sum_k sine_k sin(2 pi rate_k f) + cosine_k cos(2 pi rate_k f)

    Bands are hat functions, evenly spaced from 0 to 0.5 cycles a token. Values on bands are interpolated linearly to
    bins and added over resolutions: finer bands refine coarser ones.

    - threshold: soft, on magnitude relative to the spectrum's root mean square; per head, learned on the finest bands.
      The power is averaged over the head's channels, so all of them have the same gain.
    - phase: a term from the input, per band, and sinusoids of frequency with learned rates (in tokens), the same for
      every input. Rates start at odd quarter-waves of [0, 0.5]: in this basis the coefficients of a pure delay, a
      linear phase, fall off as 1/k^2.
    - exchange: (H, H), starts at 0.
    - dropout, in training: whole bands of the finest resolution, drawn per sample for all heads, the others scaled by
      1 / (1 - dropout).
    - entropy: see :class:`EntropyRegulariser`; of the energy after gain and threshold, before dropout.

    Gains start near 1 and phases at 0. A phase at DC or Nyquist scales by its cosine. A causal mixer realises the gain
    by minimum phase and the phase approximately. O(F K + K^2) per head and sample.
    """

    def setup(self, config: AdvancedConfig, context: GateContext) -> None:
        heads, terms = context.heads, config.phase_terms
        bands, finest = sum(config.resolutions), config.resolutions[-1]
        self.entropy = None if config.entropy is None else EntropyRegulariser(config.entropy)
        self.weight = nn.Parameter(0.1 * bands**-0.5 * torch.randn(heads, bands, bands))
        self.bias = nn.Parameter(torch.zeros(heads, bands))
        self.exchange = nn.Parameter(torch.zeros(heads, heads)) if config.cross_head else None
        self.log_threshold: nn.Parameter | None = None
        if config.threshold is not None:
            self.log_threshold = nn.Parameter(torch.full((heads, finest), math.log(config.threshold)))
        self.turn: nn.Parameter | None = None
        if terms is not None:
            self.turn = nn.Parameter(torch.zeros(heads, bands, bands))
            self.rate = nn.Parameter((torch.arange(terms) + 0.5).repeat(heads, 1))
            self.sine = nn.Parameter(torch.zeros(heads, terms))
            self.cosine = nn.Parameter(torch.zeros(heads, terms))

    def forward(self, view: SpectralView) -> Modulation:
        hat = hats(view.frequency, *self.config.resolutions)
        fine = hat[-self.config.resolutions[-1] :]
        power = view.relative_power
        energies = contrast(log_energies(power, hat))
        logits = across_bands(energies, self.weight) + self.bias
        if self.exchange is not None:
            logits = logits + torch.einsum("gh,bhk->bgk", self.exchange, logits)
        logits = logits @ hat
        threshold = torch.ones_like(power)
        if self.log_threshold is not None:
            threshold = torch.sigmoid(_SHARPNESS * (power.log() / 2 - self.log_threshold @ fine))
        gain = 2 * torch.sigmoid(logits) * threshold
        report = Report()
        if self.entropy is not None:
            push, report = self.entropy(view, power * gain.square(), fine)
            gain = 2 * torch.sigmoid(logits + push @ fine) * threshold
        if self.training and self.config.dropout > 0:
            gain = gain * (F.dropout(power.new_ones(power.shape[0], 1, len(fine)), self.config.dropout) @ fine)
        if self.turn is None:
            return Modulation(gain[:, :, None]) + report
        angle = 2 * torch.pi * self.rate[..., None] * view.frequency  # (H, terms, F)
        sinusoids = self.sine[..., None] * torch.sin(angle) + self.cosine[..., None] * torch.cos(angle)
        phase = phase_shifts(energies, self.turn) @ hat + sinusoids.sum(1)
        return Modulation(gain[:, :, None], phase[:, :, None]) + report
