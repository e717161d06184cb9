"""The layout of separable mixing: the rows, or the columns, of a plane as sequences."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spectral_layers import Rotation, Rows
from spectral_layers.positions.base import Grid
from spectral_models.variants.stack import Layout


@dataclass(frozen=True)
class Lines(Layout):
    """The rows of a plane (R, C) as sequences: (B, R C, D) -> (B R, C, D). If ``down``, its columns: (B C, R, D).

    grid: (R, C).
    """

    grid: Grid = (1, 1)
    down: bool = False

    @classmethod
    def of(cls, grid: Grid, *, down: bool, batch: int, rows: Rows | None, rotation: Rotation | None) -> Lines:
        """The layout for a batch of planes.

        rows: of (B, R C, D); padding is whole rows at the end of a plane. rotation: of all R C positions.
        """
        lines = cls(grid=grid, down=down)
        if rotation is not None:
            rotation = Rotation(*(lines.split(part.expand(batch, -1, -1)) for part in (rotation.cos, rotation.sin)))
        if rows is not None:
            height, width = grid
            real = rows.lengths // width
            if down:
                rows = Rows(real.repeat_interleave(width))
            else:
                rows = Rows((torch.arange(height, device=real.device) < real[:, None]).flatten() * width)
        return cls(rows, rotation, grid, down)

    def split(self, x: Tensor) -> Tensor:
        plane = x.unflatten(1, self.grid)
        return (plane.transpose(1, 2) if self.down else plane).flatten(0, 1)

    def merge(self, y: Tensor) -> Tensor:
        lines = y.unflatten(0, (-1, self.grid[1] if self.down else self.grid[0]))
        return (lines.transpose(1, 2) if self.down else lines).flatten(1, 2)
