"""Colours of angles."""

from __future__ import annotations

import math
from typing import Any

import torch
from matplotlib.colors import ListedColormap
from torch import Tensor


def coloured(angle: Tensor, weight: Tensor | float = 1.0) -> Tensor:
    """Cyclic colours (..., 3) of angles in radians; greyer as the weight falls from 1 to 0.

    Three cosines a third of a turn apart, so that all angles have about the same lightness.
    """
    thirds = torch.arange(3, dtype=angle.dtype) * (2 * math.pi / 3)
    hue = 0.5 + 0.45 * torch.cos(angle[..., None] - thirds)
    share = torch.as_tensor(weight, dtype=angle.dtype).clamp(0, 1)[..., None]
    return share * hue + (1 - share) * 0.92


PHASES = ListedColormap(coloured(torch.linspace(-math.pi, math.pi, 257)).numpy())
"""These colours from -pi to pi."""


def mark_turns(bar: Any) -> None:
    """Name -pi, 0 and pi on a colour bar."""
    bar.set_ticks([-math.pi, 0, math.pi], labels=["-π", "0", "π"])
