"""Frequency bands: what parts keep their parameters on, because bins come and go with the span."""

from __future__ import annotations

import torch
from torch import Tensor

FLOOR = 1e-6
"""Power added before roots and logarithms: what is 60 dB below 1 counts as silence."""


def hats(frequency: Tensor, *resolutions: int) -> Tensor:
    """Bands as hat functions, evenly spaced from 0 to 0.5 cycles a token: (F,) -> (K, F), K the sum of resolutions.

    The hats of one resolution sum to 1 in every bin, so ``values @ hats`` interpolates values on bands linearly, for
    any number of bins. Those of several resolutions follow each other in the order given.
    """

    def of(bands: int) -> Tensor:
        centre = torch.arange(bands, device=frequency.device, dtype=frequency.dtype)
        return (1 - (frequency * (2 * (bands - 1)) - centre[:, None]).abs()).clamp(min=0)

    return torch.cat([of(bands) for bands in resolutions])


def band_means(field: Tensor, hats: Tensor) -> Tensor:
    """Mean of a field in each band, (..., F) -> (..., K); 1 in bands that have no bin, as short spans leave some."""
    weight = hats.sum(-1)
    means = (field @ hats.T).to(field.dtype) / weight.clamp(min=1e-6)
    return torch.where(weight > 0, means, 1.0)


def log_energies(power: Tensor, hats: Tensor) -> Tensor:
    """Log of each band's mean power, (..., F) -> (..., K); 0 where it is 1 or the band has no bin."""
    return torch.log(band_means(power, hats) + FLOOR)


def contrast(energies: Tensor) -> Tensor:
    """Which bands stand out: (e - mean e) / sqrt(var e + 1) over bands, at most sqrt(K) in size; 0 for a flat spectrum.

    Log-energies of nearly empty bands are far below and go together, so unscaled one step of an optimiser can shut a
    gate for good.
    """
    centred = energies - energies.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1).sqrt()


def across_bands(energies: Tensor, weight: Tensor) -> Tensor:
    """What all bands tell each band, per head: (B, H, K), weight (H, K to, K from) -> (B, H, K to)."""
    return torch.einsum("bhk,hjk->bhj", energies, weight)
