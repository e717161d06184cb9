"""Frequency bands: hat functions over the bins of any span, which carry powers to bands and gains back."""

from __future__ import annotations

import torch
from torch import Tensor

FLOOR = 1e-6
"""Power added before roots and logarithms: what is 60 dB below 1 counts as silence."""


class Bands:
    """``count`` hats evenly spaced from 0 to half a cycle a token, on the bins of ``points`` points.

    At each bin the hats sum to 1, so a field that is equal in all bands is flat over the bins.
    """

    def __init__(self, count: int, points: int, like: Tensor) -> None:
        position = torch.arange(points // 2 + 1, dtype=like.dtype, device=like.device) * (2 * (count - 1) / points)
        centre = torch.arange(count, dtype=like.dtype, device=like.device)
        self.hats = (1 - (position - centre[:, None]).abs()).clamp(min=0)  # (bands, F)

    def levels(self, power: Tensor) -> Tensor:
        """Log of the mean power in each band, (..., F) -> (..., bands); 0 where a short span has no bin."""
        weight = self.hats.sum(-1)
        mean = power @ self.hats.T / weight.clamp(min=1e-6)
        return torch.where(weight > 0, torch.log(mean + FLOOR), 0.0)

    def spread(self, values: Tensor) -> Tensor:
        """One value a band to one a bin, interpolated linearly: (..., bands) -> (..., F)."""
        return values.to(self.hats.dtype) @ self.hats
