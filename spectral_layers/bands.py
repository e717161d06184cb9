"""Frequency bands. Parts have parameters per band, because the number of bins depends on the span."""

from __future__ import annotations

import torch
from torch import Tensor

FLOOR = 1e-6
"""Power added before roots and logarithms; powers 60 dB below 1 count as silence."""


def hats(frequency: Tensor, *resolutions: int) -> Tensor:
    """Hat functions of bands evenly spaced from 0 to 0.5 cycles a token: (F,) -> (K, F), K the sum of resolutions.

    frequency: in cycles a token. resolutions: numbers of bands; their hats are concatenated in this order. The hats of
    one resolution sum to 1 in every bin, so ``values @ hats`` interpolates values per band linearly to any bins.
    """

    def evenly_spaced(bands: int) -> Tensor:
        centre = torch.arange(bands, device=frequency.device, dtype=frequency.dtype)
        return (1 - (frequency * (2 * (bands - 1)) - centre[:, None]).abs()).clamp(min=0)

    return torch.cat([evenly_spaced(bands) for bands in resolutions])


def band_means(field: Tensor, hats: Tensor) -> Tensor:
    """Mean of a field in each band, (..., F) -> (..., K); 1 in bands without a bin, which short spans have."""
    weight = hats.sum(-1)
    means = (field @ hats.T).to(field.dtype) / weight.clamp(min=1e-6)
    return torch.where(weight > 0, means, 1.0)


def log_energies(power: Tensor, hats: Tensor) -> Tensor:
    """Log of each band's mean power, (..., F) -> (..., K); 0 for a band without a bin."""
    return torch.log(band_means(power, hats) + FLOOR)


def contrast(energies: Tensor) -> Tensor:
    """Log-energies standardised over bands: (e - mean e) / sqrt(var e + 1), bounded by sqrt(K); 0 for a flat spectrum.

    Log-energies of nearly empty bands are large and negative together. Unscaled, one optimiser step could close a gate
    for good.
    """
    centred = energies - energies.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1).sqrt()


def across_bands(energies: Tensor, weight: Tensor) -> Tensor:
    """Linear map over bands, per head: (B, H, K) by a weight (H, K', K) -> (B, H, K')."""
    return torch.einsum("bhk,hjk->bhj", energies, weight)
