"""Learned positions: a parameter vector for each."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spectral_core import ConfigError
from spectral_layers.context import LayerContext
from spectral_layers.positions.base import Grid, Position, PositionConfig


class LearnedConfig(PositionConfig):
    """A parameter vector for each position, added to the model's input; limits the length to max_seq_len."""

    type: Literal["learned"] = "learned"


class Learned(Position[LearnedConfig]):
    """x[t] + table[p], with a parameter vector for each of ``max_seq_len`` positions. O(L D).

    On a grid the position is the index, row by row, so grids of different widths share no geometry.
    Gehring et al., "Convolutional sequence to sequence learning", 2017.
    """

    def setup(self, config: LearnedConfig, context: LayerContext) -> None:
        size = context.max_seq_len
        if size is None:
            raise ConfigError("the position 'learned' has one vector per position: set the model's max_seq_len.")
        self.length_limit = size
        self.table = nn.Parameter(torch.empty(size, context.hidden_dim).normal_(std=context.feature_size))

    def embed(self, x: Tensor, positions: Tensor, grid: Grid | None = None) -> Tensor:
        self.check_limit(positions)
        return x + F.embedding(positions, self.table).to(x.dtype)
