"""Checks of positions: the result of a token depends on the token and its index only."""

from __future__ import annotations

import torch
from torch import Tensor

from spectral_core.errors import UnsupportedInputError
from spectral_core.testing import assert_close
from spectral_layers.positions.base import Grid, Position
from spectral_layers.testing.cases import PositionCase, has_parameters, is_limited
from spectral_layers.testing.check import for_all, normal, only_for, require_error, require_like
from spectral_layers.testing.gradients import require_parameter_gradients

_GRID = (5, 8)
_LENGTH = 40
_FAR = 3_000_000


@for_all
def check_a_position_keeps_shapes_and_dtypes(case: PositionCase) -> None:
    """(B, L, D) keeps shape and dtype in float64, float32 and bfloat16, also if empty; the input is not changed."""
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        part = case.build(dtype)
        for batch, positions in ((2, torch.arange(_LENGTH)[None]), (0, torch.arange(_LENGTH).expand(0, -1))):
            x = normal(batch, _LENGTH, case.hidden_dim, dtype=dtype)
            kept = x.clone()
            y = placed(part, x, positions)
            require_like(str(case), y, x)
            if not torch.equal(x, kept):
                raise AssertionError(f"{case} changes its input in place; work on a copy.")


@for_all
def check_a_place_is_an_absolute_index(case: PositionCase) -> None:
    """Part of a row has the result it has in the whole row, at any index in each row of a batch, also on a grid.

    Therefore a full pass, chunks and single tokens agree.
    """
    part, x = case.build(), normal(3, _LENGTH, case.hidden_dim)
    indices = torch.arange(_LENGTH)
    with torch.no_grad():
        for grid in (None, _GRID):
            whole = placed(part, x, indices[None], grid)
            where = f"{case} on {'a line' if grid is None else f'a grid of {grid}'}"
            alike = placed(part, x, indices.expand(3, -1), grid)
            assert_close(f"{where}: positions given for each row", alike, whole, 1e-12)
            for start, stop in ((0, 1), (1, 2), (7, 20), (_LENGTH - 1, _LENGTH)):
                here = slice(start, stop)
                y = placed(part, x[:, here], indices[None, here], grid)
                assert_close(f"{where}: tokens {start} to {stop - 1} by themselves", y, whole[:, here], 1e-12)
            starts = torch.tensor([0, 5, 31])
            ragged = starts[:, None] + torch.arange(9)
            y = placed(part, x[torch.arange(3)[:, None], ragged], ragged, grid)
            for row, start in enumerate(starts.tolist()):
                what = f"{where}: a row that stands at {start} beside others"
                assert_close(what, y[row], whole[row, start : start + 9], 1e-12)


@for_all
def check_places_of_tokens_do_not_mix(case: PositionCase) -> None:
    """Changing one token does not change the results of others."""
    part, x = case.build(), normal(3, _LENGTH, case.hidden_dim)
    with torch.no_grad():
        for row, token in ((0, 0), (1, 17), (2, _LENGTH - 1)):
            changed = x.clone()
            changed[row, token] *= -100
            y = placed(part, x, torch.arange(_LENGTH)[None])
            others = placed(part, changed, torch.arange(_LENGTH)[None])
            others[row, token] = y[row, token]
            assert_close(f"{case}: the other tokens when token {token} of row {row} is new", others, y, 1e-12)


@only_for(lambda case: case.build().rotation(torch.arange(2)[None], torch.float64) is not None)
def check_rotations_keep_lengths(case: PositionCase) -> None:
    """A rotation keeps the norm of each token."""
    part, x = case.build(), normal(2, _LENGTH, case.hidden_dim)
    turn = part.rotation(torch.arange(_LENGTH)[None], x.dtype)
    assert turn is not None
    assert_close(f"{case}: lengths of turned tokens", turn(x).norm(dim=-1), x.norm(dim=-1), 1e-12)


@only_for(lambda case: not is_limited(case))
def check_far_positions_are_exact(case: PositionCase) -> None:
    """At positions of millions, float32 agrees with float64; an angle in float32 would be off by a tenth."""
    x, positions = normal(1, _LENGTH, case.hidden_dim), torch.arange(_FAR, _FAR + _LENGTH)[None]
    with torch.no_grad():
        exact = placed(case.build(), x, positions)
        single = placed(case.build(torch.float32), x.float(), positions)
    assert_close(f"{case}: tokens from {_FAR} on in float32", single.double(), exact, 1e-5)


@only_for(is_limited)
def check_the_limit_of_a_position_is_kept(case: PositionCase) -> None:
    """The last position below the limit is accepted; the next is refused, by ``check_limit`` and by a call."""
    part = case.build()
    limit = part.length_limit
    assert limit is not None
    x, last = normal(1, 1, case.hidden_dim), torch.tensor([[limit - 1]])
    part.check_limit(last)
    placed(part, x, last)
    what = f"{case}: position {limit}, limit {limit}"
    require_error(UnsupportedInputError, f"{what}, asked ahead", part.check_limit, last + 1)
    require_error(UnsupportedInputError, what, placed, part, x, last + 1)


@only_for(has_parameters)
def check_every_parameter_of_a_position_learns(case: PositionCase) -> None:
    """Each parameter gets a finite gradient that is not all zero."""
    part = case.build()
    y = placed(part, normal(2, _LENGTH, case.hidden_dim), torch.arange(_LENGTH)[None])
    (y * normal(2, _LENGTH, case.hidden_dim, seed=1)).sum().backward()
    require_parameter_gradients(str(case), part)


def placed(part: Position, x: Tensor, positions: Tensor, grid: Grid | None = None) -> Tensor:
    """X as a block's mixer gets it, but for the norm."""
    y = part.embed(x, positions, grid)
    turn = part.rotation(positions, y.dtype, grid)
    return y if turn is None else turn(y)
