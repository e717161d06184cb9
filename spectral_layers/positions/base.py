"""The contract of a position: it encodes the index of each token in its row.

Indices are absolute: rows start at 0 and a state continues at ``state.position``, so a full pass, any chunks and single
tokens give the same features, and padding has no effect (:func:`positions_of`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from spectral_core.config import PartConfig
from spectral_core.errors import UnsupportedInputError
from spectral_layers.context import LayerContext
from spectral_layers.entry import Entered, entry
from spectral_layers.part import C, Part
from spectral_layers.rows import Rows
from spectral_layers.state import State

Grid = tuple[int, int]


@dataclass(frozen=True)
class Rotation:
    """Rotates channels i and i + P of (B, L, D); cos and sin of the angles are (B or 1, L, P).

    y_i = x_i cos_i - x_{i+P} sin_i and y_{i+P} = x_i sin_i + x_{i+P} cos_i; channels from 2P on are unchanged. O(L D).
    """

    cos: Tensor
    sin: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        pairs = self.cos.shape[-1]
        first, second, rest = x.split([pairs, pairs, x.shape[-1] - 2 * pairs], -1)
        turned = (first * self.cos - second * self.sin).to(x.dtype), (first * self.sin + second * self.cos).to(x.dtype)
        return torch.cat([*turned, rest], -1)


class Position(Part[LayerContext, C], Entered):
    """Base of positions. A subclass overrides :meth:`embed` or :meth:`rotation`; by default neither has an effect.

    length_limit: number of positions; None for no limit.

    In both methods, positions: (B, L) integers, or (1, L) if all rows have the same. grid: (rows, columns) if positions
    are indices into a plane, row by row; else None. No token's features may depend on another token.
    """

    context_class = LayerContext
    must_return = (("embed", Tensor), ("rotation", (Rotation, type(None))))
    length_limit: int | None = None

    @entry
    def embed(self, x: Tensor, positions: Tensor, grid: Grid | None = None) -> Tensor:
        """Features x (B, L, D) with encoded positions added; the model calls it once, on the front end's output."""
        return x

    @entry
    def rotation(self, positions: Tensor, dtype: torch.dtype, grid: Grid | None = None) -> Rotation | None:
        """Rotation of the mixer's input, of this dtype, in every block; computed once per model call. Or None."""
        return None

    def check_limit(self, positions: Tensor) -> None:
        """Raise UnsupportedInputError if a position is beyond the length limit."""
        if self.length_limit is None or not positions.numel():
            return
        # In a traced graph positions have no values, so only the call's own length is checked.
        needed = positions.shape[1] if torch.compiler.is_compiling() else int(positions.max()) + 1
        if needed > self.length_limit:
            raise UnsupportedInputError(
                f"{type(self).__name__} is limited to {self.length_limit} tokens, one parameter vector each; got "
                f"{needed}. Raise max_seq_len, or use a position without a limit."
            )


class PositionConfig(PartConfig):
    """Base of the configs of positions."""

    must_return = (("build", Position),)

    part_class: ClassVar[Any] = Position

    def build(self, context: LayerContext) -> Position:
        return self.part_class(context, self)


def positions_of(x: Tensor, rows: Rows | None, state: State | None) -> Tensor:
    """The absolute indices of tokens x (B, L, ...) that continue ``state``: (B, L), or (1, L) without a state.

    Padding after a state gets index 0, so that it cannot exceed a length limit.
    """
    indices = torch.arange(x.shape[1], device=x.device)[None]
    if state is None:
        return indices
    if not isinstance(state, State):
        raise UnsupportedInputError(
            f"state must be what a call with return_state=True returned; got {type(state).__name__}."
        )
    indices = state.position[:, None] + indices
    return indices if rows is None else torch.where(rows.mask(x.shape[1]), indices, 0)


def angles(positions: Tensor, pairs: int, base: float, grid: Grid | None = None) -> Tensor:
    """theta_i = p base^(-i / pairs) mod 2 pi, for pairs i = 0, 1, ...: (B, L) -> (B, L, pairs) in float64.

    In float32 the fastest angle would be off by 0.001 at ten thousand tokens and by a radian at ten million. On a grid
    p is the token's row in the first half of the pairs (the larger half, if odd) and its column in the second.
    """
    if grid is not None:
        down = angles(positions // grid[1], pairs - pairs // 2, base)
        across = angles(positions % grid[1], pairs // 2, base)
        return torch.cat([down, across], -1)
    index = torch.arange(pairs, device=positions.device, dtype=torch.float64)
    return (positions[..., None] * base ** (-index / pairs)).remainder_(2 * math.pi)
