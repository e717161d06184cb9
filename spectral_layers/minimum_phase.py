"""From a gain to the causal kernel that has it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from spectral_core import FFTBackend, Spectrum

FLOOR = 1e-4
"""Gains below -80 dB are raised to it: their logarithm must exist, and deeper notches ring longer than a window."""


def minimum_phase(gain: Tensor, taps: int, fft: FFTBackend, *, phase: Tensor | None = None) -> Tensor:
    """The first ``taps`` taps of the minimum-phase kernel with that gain: (..., F) -> (..., taps).

    gain: real, on F = n // 2 + 1 bins of n points, n even. Of all causal kernels with this gain it is the one whose
    energy comes earliest, so cutting it keeps the gain best; cutting the zero-phase kernel at t >= 0 does not.
    Real cepstrum on a grid oversampled 4 times (log-gain interpolated linearly), folded onto t >= 0.

    phase: an extra phase, (..., F). Turned in after the fact and cut to t >= 0 again, so it and then the gain hold only
    approximately. Oppenheim & Schafer, Discrete-Time Signal Processing, section 13.
    """
    oversampling = 4
    bins = gain.shape[-1]
    points = 2 * (bins - 1) * oversampling
    log_gain = _refined(gain.clamp(min=FLOOR).log(), oversampling)
    cepstrum = fft.irfft(Spectrum(log_gain, torch.zeros_like(log_gain)), points)
    # Fold: what lies at negative times moves to its mirror image; DC and the half-way point stay.
    half = points // 2
    folded = torch.cat([cepstrum[..., :1], 2 * cepstrum[..., 1:half], cepstrum[..., half : half + 1]], -1)
    real, imag = fft.rfft(folded, points)
    if phase is not None:
        imag = imag + _refined(phase, oversampling)
    size = real.exp()
    kernel = fft.irfft(Spectrum(size * torch.cos(imag), size * torch.sin(imag)), points)
    return kernel[..., :taps]


def _refined(values: Tensor, times: int) -> Tensor:
    bins = (values.shape[-1] - 1) * times + 1
    flat = values.reshape(-1, 1, values.shape[-1])
    return F.interpolate(flat, size=bins, mode="linear", align_corners=True).reshape(*values.shape[:-1], bins)
