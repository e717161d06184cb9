"""Resampling of spectra, so that streams of different lengths have the same bins."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from spectral_core import Spectrum


def resampled(spectrum: Spectrum, points: int, wanted: int) -> Spectrum:
    """The spectrum (..., F) of ``points`` samples, resampled to ``wanted`` samples over the same span of time.

    Common bins are kept, higher ones dropped or zero, all scaled by wanted / points, which preserves the values of the
    band-limited signal. If the smaller number is even, its last bin is at plus and minus Nyquist: it is halved when
    upsampling and doubled when downsampling, so that upsampling and then downsampling is the identity. Oppenheim &
    Schafer, section 4.6.
    """
    if wanted == points:
        return spectrum
    shorter = min(points, wanted)
    bins = shorter // 2 + 1
    scale = torch.full((bins,), wanted / points, dtype=spectrum.real.dtype, device=spectrum.real.device)
    if shorter % 2 == 0:
        scale[-1] *= 0.5 if wanted > points else 2.0
    missing = wanted // 2 + 1 - bins
    return Spectrum(*(F.pad(part[..., :bins] * scale, (0, missing)) for part in spectrum))
