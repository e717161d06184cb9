"""Rotary positions: channel pairs turned by angles proportional to the token's place."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from spectral_layers.context import LayerContext
from spectral_layers.positions.base import Grid, Position, PositionConfig, Rotation, angles


class RopeConfig(PositionConfig):
    """Every mixer's input, its channel pairs turned in proportion to the position."""

    type: Literal["rope"] = "rope"
    base: float = Field(default=500_000.0, gt=1.0, le=1e12)
    """Angles a token fall from 1 to nearly 1 / base over the pairs."""


class Rope(Position[RopeConfig]):
    """Channels i and i + D/2 of every mixer's input are turned by p base^(-2i / D), p the token's position.

    In attention the inner product of a turned query and key depends on their distance alone. Here what a mixer's
    projections make of the turned stream depends on the absolute place too; lengths of tokens are kept, and nothing
    is learned. On a grid half of the pairs turns with the row and half with the column. No limit of length: angles are
    taken in float64 and reduced before they are cast, so a million tokens on they are as exact as at the start. O(L D).

    Su et al., "RoFormer: enhanced transformer with rotary position embedding", 2021; base 500,000 as in Llama 3, 2024.
    """

    def setup(self, config: RopeConfig, context: LayerContext) -> None:
        self.pairs = context.hidden_dim // 2
        self.base = config.base

    def rotation(self, positions: Tensor, dtype: torch.dtype, grid: Grid | None = None) -> Rotation:
        theta = angles(positions, self.pairs, self.base, grid).to(torch.promote_types(dtype, torch.float32))
        return Rotation(theta.cos(), theta.sin())
