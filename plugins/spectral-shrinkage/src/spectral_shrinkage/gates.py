"""Soft thresholding of a spectrum's magnitudes."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn
from torch.nn import functional as F

from spectral_layers import Gate, GateConfig, GateContext, Modulation, SpectralView

_SHARPNESS = 10.0
"""Of the softplus that stands for relu: it errs by log(2) / 10 = 0.07 at the threshold and by 5e-6 far above it."""

_FADED = 1e-3
"""Relative magnitude below which a bin's gain no longer follows it; 1/m^2 in the gradient would overflow."""


class SoftThresholdConfig(GateConfig):
    """Shrinks magnitudes below a learned threshold; phases pass unchanged."""

    type: Literal["shrinkage/soft_threshold"] = "shrinkage/soft_threshold"
    initial: PositiveFloat = 0.5
    """Threshold to begin with, in units of the spectrum's root mean square. Independent Gaussian noise has a fraction
    1 - exp(-initial^2) of its bins below."""


class SoftThreshold(Gate[SoftThresholdConfig]):
    """gain = relu(1 - tau_h / m), smoothed: the bin's magnitude is reduced by tau_h, and its phase is kept.

    m is the magnitude of a bin over the root mean square of its channel's bins, tau_h > 0 a learned threshold for each
    head, so what is cut is the weak part of a spectrum whatever its level. Relu is softplus(10 x) / 10: bins below the
    threshold keep a gradient. A spectrum that is all zero has m = 1 everywhere. O(F).

    Donoho & Johnstone, Ideal spatial adaptation by wavelet shrinkage, Biometrika 81(3), 1994, with the noise level
    learned and not estimated.
    """

    def setup(self, config: SoftThresholdConfig, context: GateContext) -> None:
        # Through softplus, so that no step of an optimiser makes it negative; the inverse, stable for large values.
        before_softplus = config.initial + math.log(-math.expm1(-config.initial))
        self.threshold = nn.Parameter(torch.full((context.heads, 1, 1), before_softplus))

    def forward(self, view: SpectralView) -> Modulation:
        shrunk = 1 - F.softplus(self.threshold) / view.relative_magnitude.clamp(min=_FADED)
        gain: Tensor = F.softplus(shrunk, beta=_SHARPNESS)
        return Modulation(gain=gain)
