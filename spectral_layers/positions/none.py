"""No positions: the output of a causal mixer depends on the order of tokens anyway."""

from __future__ import annotations

from typing import Literal

from spectral_layers.positions.base import Position, PositionConfig


class NoPositionConfig(PositionConfig):
    """No positions: features pass unchanged."""

    type: Literal["none"] = "none"


class NoPosition(Position[NoPositionConfig]):
    """Returns features unchanged."""
