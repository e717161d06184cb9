"""No position: causal mixers know the order of tokens by themselves."""

from __future__ import annotations

from typing import Literal

from spectral_layers.positions.base import Position, PositionConfig


class NoPositionConfig(PositionConfig):
    """Features are left as they are."""

    type: Literal["none"] = "none"


class NoPosition(Position[NoPositionConfig]):
    """Leaves features as they are."""
