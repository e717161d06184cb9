"""Bands: what a sparsity keeps its parameters on, because bins come and go with the span."""

from __future__ import annotations

import torch
from torch import Tensor


def hats(frequency: Tensor, bands: int) -> Tensor:
    """Bands as hat functions evenly spaced from 0 to 0.5 cycles a token, (F,) -> (bands, F); they sum to 1 in each bin.

    ``values @ hats`` interpolates values on bands linearly, for any number of bins.
    """
    centre = torch.arange(bands, device=frequency.device, dtype=frequency.dtype)
    return (1 - (frequency * (2 * (bands - 1)) - centre[:, None]).abs()).clamp(min=0)
