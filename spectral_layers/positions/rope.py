"""Rotary positions: channel pairs rotated by angles proportional to the position."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from spectral_layers.context import LayerContext
from spectral_layers.positions.base import Grid, Position, PositionConfig, Rotation, angles


class RopeConfig(PositionConfig):
    """Rotates channel pairs of every mixer's input by angles proportional to the position."""

    type: Literal["rope"] = "rope"
    base: float = Field(default=500_000.0, gt=1.0, le=1e12)
    """Angles per token decrease from 1 to nearly 1 / base over the pairs."""


class Rope(Position[RopeConfig]):
    """Channels i and i + D/2 of every mixer's input are rotated by p base^(-2i / D), p the token's position.

    In attention the inner product of a rotated query and key depends on their distance alone. Here the rotation comes
    before a mixer's projections, whose outputs depend on the absolute position too. Norms are unchanged; there are no
    parameters. On a grid half of the angles follow the row and half the column. No length limit: angles are computed
    in float64 and reduced modulo 2 pi before the cast, so they are exact at any position. O(L D).

    Su et al., "RoFormer: enhanced transformer with rotary position embedding", 2021; base 500,000 as in Llama 3, 2024.
    """

    def setup(self, config: RopeConfig, context: LayerContext) -> None:
        self.pairs = context.hidden_dim // 2

    def rotation(self, positions: Tensor, dtype: torch.dtype, grid: Grid | None = None) -> Rotation:
        theta = angles(positions, self.pairs, self.config.base, grid).to(torch.promote_types(dtype, torch.float32))
        return Rotation(theta.cos(), theta.sin())
