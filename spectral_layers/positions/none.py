"""No position: causal mixers know the order of tokens by themselves."""

from __future__ import annotations

from typing import Literal

from spectral_layers.context import LayerContext
from spectral_layers.positions.base import Position, PositionConfig


class NoPosition(Position):
    """Leaves features as they are."""


class NoPositionConfig(PositionConfig):
    """Features are left as they are."""

    type: Literal["none"] = "none"

    def build(self, context: LayerContext) -> NoPosition:
        return NoPosition()
