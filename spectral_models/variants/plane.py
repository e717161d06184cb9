"""Features on a plane, taken apart into its rows or its columns: what separable mixing goes along."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spectral_layers import Rotation, Rows
from spectral_layers.positions.base import Grid
from spectral_models.variants.stack import Way


@dataclass(frozen=True)
class Lines(Way):
    """Each row of a plane (R, C), or each column if ``down``, as a sequence of its own: (B, R C, D) -> (B R, C, D)."""

    grid: Grid = (1, 1)
    down: bool = False

    @classmethod
    def through(cls, grid: Grid, *, down: bool, batch: int, rows: Rows | None, rotation: Rotation | None) -> Lines:
        """Lines of a batch of planes. rows: how much of each plane is real, in whole rows. rotation: of all its places.

        What is padding in a plane are whole rows of it, or the ends of all its columns.
        """
        bare = cls(grid=grid, down=down)
        if rotation is not None:
            rotation = Rotation(*(bare.enter(part.expand(batch, -1, -1)) for part in (rotation.cos, rotation.sin)))
        if rows is not None:
            height, width = grid
            real = rows.lengths // width
            if down:
                rows = Rows(real.repeat_interleave(width))
            else:
                inside = torch.arange(height, device=real.device) < real[:, None]
                rows = Rows(inside.flatten() * width)
        return cls(rows, rotation, grid, down)

    def enter(self, x: Tensor) -> Tensor:
        plane = x.unflatten(1, self.grid)
        return (plane.transpose(1, 2) if self.down else plane).flatten(0, 1)

    def leave(self, y: Tensor) -> Tensor:
        lines = y.unflatten(0, (-1, self.grid[1] if self.down else self.grid[0]))
        return (lines.transpose(1, 2) if self.down else lines).flatten(1, 2)
