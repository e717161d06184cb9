"""Sinusoidal positions, in one or two dimensions."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from spectral_core.config import Scale
from spectral_layers.context import LayerContext
from spectral_layers.positions.base import Grid, Position, PositionConfig, angles


class SinusoidalConfig(PositionConfig):
    """Sines and cosines of the position, in one or two dimensions, added to the model's input."""

    type: Literal["sinusoidal"] = "sinusoidal"
    base: float = Field(default=10_000.0, gt=1.0, le=1e12)
    """Angles per token decrease from 1 to nearly 1 / base."""
    scale: Scale | None = None
    """Initial value of the learned scale; null takes the initial root mean square of the front end's output."""


class Sinusoidal(Position[SinusoidalConfig]):
    """x[t] + scale (sin theta(p), cos theta(p)), theta_i(p) = p base^(-2i / D), with one learned scale.

    On a grid half of the angles follow the row and half the column. No length limit: angles are computed in float64 and
    reduced modulo 2 pi before the cast. O(L D).

    Vaswani et al., "Attention is all you need", 2017; learned scale: Li et al., "Neural speech synthesis with
    transformer network", 2019; two dimensions: He et al., "Masked autoencoders are scalable vision learners", 2022.
    """

    def setup(self, config: SinusoidalConfig, context: LayerContext) -> None:
        self.scale = nn.Parameter(torch.tensor(config.scale or context.feature_size))

    def embed(self, x: Tensor, positions: Tensor, grid: Grid | None = None) -> Tensor:
        width, dtype = x.shape[-1], torch.promote_types(x.dtype, torch.float32)
        theta = angles(positions, width - width // 2, self.config.base, grid).to(dtype)
        return x + (self.scale * torch.cat([theta.sin(), theta.cos()], -1)[..., :width]).to(x.dtype)
