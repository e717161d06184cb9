"""The multiband gate ``advanced``: gains and phases of bands at several resolutions."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from spectral_core.config import Scale, Width
from spectral_layers.bands import across_bands, contrast, hats, log_energies
from spectral_layers.context import GateContext
from spectral_layers.gates.base import Gate, GateConfig, Modulation, SpectralView
from spectral_layers.gates.entropy import EntropyConfig, EntropyRegulariser
from spectral_layers.gates.phase import turned
from spectral_layers.report import Report

_SHARPNESS = 4.0
"""Of the threshold: a bin at half of it keeps 1/17 of its magnitude, one at double 16/17."""


class AdvancedConfig(GateConfig):
    """Multiband gains and phases, coarse to fine, with thresholds, cross-head fusion, dropout and entropy."""

    type: Literal["advanced"] = "advanced"
    resolutions: tuple[Annotated[Width, Field(ge=2)], ...] = Field(default=(4, 8, 16), min_length=1, max_length=16)
    """Numbers of bands from 0 to half a cycle per token, coarse to fine; their gates are combined."""
    threshold: Scale | None = 0.1
    """Initial soft threshold on magnitudes, in units of the spectrum's root mean square; null for none."""
    phase_terms: Width | None = 4
    """Sines and as many cosines of frequency in the learned phase; null leaves phases alone altogether."""
    cross_head: bool = True
    """Let heads mix their gates."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of bands dropped in training."""
    entropy: EntropyConfig | None = None
    """Hold the usage of bands near a target entropy; null for no regularisation, {} for the defaults."""

    @model_validator(mode="after")
    def _coarse_to_fine(self) -> AdvancedConfig:
        if list(self.resolutions) != sorted(set(self.resolutions)):
            raise ValueError(f"resolutions run from coarse to fine, each once; got {list(self.resolutions)}")
        return self


class Advanced(Gate[AdvancedConfig]):
    """Gain and phase per head, from bands of several resolutions together; p is the head's relative power per bin.

    ::

        c     = contrast of the log-energies of every band, of all resolutions     (B, H, K)
        z     = (1 + exchange) (weight c + bias)     weight mixes bands, exchange mixes heads
        gain  = 2 sigmoid(z on bins) * p^2 / (p^2 + threshold^4) * dropout         (B, H, 1, F)
        phase = (pi tanh(turn c)) on bins + sum_k sine_k sin(2 pi rate_k f) + cosine_k cos(2 pi rate_k f)

    Bands are hats, evenly spaced from 0 to 0.5 cycles a token. On a bin the values of its bands are interpolated
    linearly, and the resolutions are added: finer bands refine coarser ones.

    - threshold: soft, on magnitude over the spectrum's root mean square; per head, on the finest bands. Bins below
      fade; the power is averaged over the head's channels, so all of them keep one filter.
    - phase: the input turns bands; the sinusoids of frequency, of learned rates (in tokens), are the same for every
      input. Rates start at odd quarter-waves of [0, 0.5], in which a linear phase, a pure delay, falls off as 1/k^2.
    - exchange: (H, H), starts at 0.
    - dropout, in training: whole bands of the finest resolution, drawn for each sample for all heads, the others
      scaled by 1 / (1 - dropout).
    - entropy: see :class:`EntropyRegulariser`; of what passes gain and threshold, before dropout.

    Gains start near 1 and phases at 0. DC and Nyquist scale by the cosine of their phase. A causal
    mixer realises the gain by minimum phase and the phase approximately. O(F K + K^2) a head and sample.
    """

    def setup(self, config: AdvancedConfig, context: GateContext) -> None:
        heads, terms = context.heads, config.phase_terms
        bands, self.finest = sum(config.resolutions), config.resolutions[-1]
        self.resolutions = config.resolutions
        self.dropout = config.dropout
        self.entropy = None if config.entropy is None else EntropyRegulariser(config.entropy)
        self.weight = nn.Parameter(0.1 * bands**-0.5 * torch.randn(heads, bands, bands))
        self.bias = nn.Parameter(torch.zeros(heads, bands))
        self.exchange = nn.Parameter(torch.zeros(heads, heads)) if config.cross_head else None
        self.log_threshold: nn.Parameter | None = None
        if config.threshold is not None:
            self.log_threshold = nn.Parameter(torch.full((heads, self.finest), math.log(config.threshold)))
        self.turn: nn.Parameter | None = None
        if terms is not None:
            self.turn = nn.Parameter(torch.zeros(heads, bands, bands))
            self.rate = nn.Parameter((torch.arange(terms) + 0.5).repeat(heads, 1))
            self.sine = nn.Parameter(torch.zeros(heads, terms))
            self.cosine = nn.Parameter(torch.zeros(heads, terms))

    def forward(self, view: SpectralView) -> Modulation:
        hat = hats(view.frequency, *self.resolutions)
        fine = hat[-self.finest :]
        power = view.relative_power
        heard = contrast(log_energies(power, hat))
        logits = across_bands(heard, self.weight) + self.bias
        if self.exchange is not None:
            logits = logits + torch.einsum("gh,bhk->bgk", self.exchange, logits)
        logits = logits @ hat
        passed = torch.ones_like(power)
        if self.log_threshold is not None:
            passed = torch.sigmoid(_SHARPNESS * (power.log() / 2 - self.log_threshold @ fine))
        gain = 2 * torch.sigmoid(logits) * passed
        report = Report()
        if self.entropy is not None:
            push, report = self.entropy(view, power * gain.square(), fine)
            gain = 2 * torch.sigmoid(logits + push @ fine) * passed
        if self.training and self.dropout > 0:
            kept = F.dropout(power.new_ones(power.shape[0], 1, self.finest), self.dropout)
            gain = gain * (kept @ fine)
        phase = self._phase(heard, hat, view.frequency)
        return Modulation(gain[:, :, None], None if phase is None else phase[:, :, None]) + report

    def _phase(self, heard: Tensor, hat: Tensor, frequency: Tensor) -> Tensor | None:
        if self.turn is None:
            return None
        angle = 2 * torch.pi * self.rate[..., None] * frequency  # (H, terms, F)
        sinusoids = self.sine[..., None] * torch.sin(angle) + self.cosine[..., None] * torch.cos(angle)
        return turned(heard, self.turn) @ hat + sinusoids.sum(1)
