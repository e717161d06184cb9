"""Learned positions: a free vector for each."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spectral_core import ConfigError
from spectral_layers.context import LayerContext
from spectral_layers.positions.base import Grid, Position, PositionConfig


class Learned(Position):
    """x[t] + table[p], a parameter vector for each of ``size`` positions, and no position beyond. O(L D).

    On a grid a token is found by its index, row by row, so grids of other widths share no geometry.
    Gehring et al., "Convolutional sequence to sequence learning", 2017.
    """

    def __init__(self, hidden_dim: int, *, size: int, feature_size: float) -> None:
        """feature_size: what the table begins with, that of the features it is added to."""
        super().__init__()
        self.length_limit = size
        self.table = nn.Parameter(torch.empty(size, hidden_dim).normal_(std=feature_size))

    def embed(self, x: Tensor, positions: Tensor, grid: Grid | None = None) -> Tensor:
        self.check_limit(positions)
        return x + F.embedding(positions, self.table).to(x.dtype)


class LearnedConfig(PositionConfig):
    """A free vector for each position, added to the model's input; limits the length to max_seq_len."""

    type: Literal["learned"] = "learned"

    def build(self, context: LayerContext) -> Learned:
        if context.max_seq_len is None:
            raise ConfigError("the position 'learned' has one vector per position: set the model's max_seq_len.")
        return Learned(context.hidden_dim, size=context.max_seq_len, feature_size=context.feature_size)
