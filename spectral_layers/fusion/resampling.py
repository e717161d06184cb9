"""Spectra of streams of different lengths on one grid of bins."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from spectral_core import Spectrum


def resampled(spectrum: Spectrum, points: int, wanted: int) -> Spectrum:
    """The spectrum (..., F) of ``points`` samples as that of ``wanted`` samples over the same span of time.

    Bins that both have are kept, higher ones dropped or zero, and all scaled by wanted / points: the inverse of
    ``wanted`` points runs through the band-limited signal, whose values keep their size. Where the smaller number is
    even, its last bin stands for a pair, plus and minus Nyquist: halved on the way up and doubled on the way down (its
    imaginary part is no signal's), so that up and back down is the identity. Oppenheim & Schafer, section 4.6.
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
