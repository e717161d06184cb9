"""Positions by hand: the formulas they state, planes as well as lines, and what a model in half precision sees."""

from __future__ import annotations

import math

import pytest
import torch

from spectral_core import ConfigError, UnsupportedInputError, fft_backend
from spectral_core.config import Config
from spectral_layers import POSITIONS, LayerContext, Position, Rows, State
from spectral_layers.positions.base import angles, positions_of
from spectral_layers.positions.learned import LearnedConfig
from spectral_layers.positions.rope import Rope, RopeConfig
from spectral_layers.positions.sinusoidal import Sinusoidal, SinusoidalConfig


def context(hidden_dim: int = 8, max_seq_len: int | None = None) -> LayerContext:
    return LayerContext(hidden_dim, True, fft_backend("auto"), max_seq_len)


def seen(part: Position, x: torch.Tensor, positions: torch.Tensor, grid: tuple[int, int] | None = None) -> torch.Tensor:
    x = part.embed(x, positions, grid)
    turn = part.rotation(positions, x.dtype, grid)
    return x if turn is None else turn(x)


def test_rope_multiplies_channel_pairs_by_phasors() -> None:
    x, base = torch.randn(2, 30, 9, dtype=torch.float64), 500_000.0
    y = seen(RopeConfig().build(context(9)), x, torch.arange(100, 130)[None])
    theta = torch.arange(100, 130)[:, None] * torch.tensor([base ** (-i / 4) for i in range(4)], dtype=torch.float64)
    turned = torch.complex(x[..., :4], x[..., 4:8]) * torch.polar(torch.ones_like(theta), theta)
    expected = torch.cat([turned.real, turned.imag, x[..., 8:]], -1)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)


def test_inner_products_of_turned_tokens_depend_on_their_distance_alone() -> None:
    part, q, k = Rope(dim=16, base=100.0), *torch.randn(2, 1, 1, 16, dtype=torch.float64)
    products = [
        (seen(part, q, torch.tensor([[start + 7]])) * seen(part, k, torch.tensor([[start]]))).sum()
        for start in (0, 1, 50, 1_000_000)
    ]
    assert max(products) - min(products) < 1e-8
    assert abs(products[0] - (q * k).sum()) > 1e-2


@pytest.mark.parametrize("width", [8, 7, 1])
def test_sinusoidal_adds_the_table_of_the_transformer(width: int) -> None:
    x = torch.randn(1, 20, width, dtype=torch.float64)
    part = SinusoidalConfig(scale=0.5).build(context(width)).double()
    added = (seen(part, x, torch.arange(20)[None]) - x)[0]
    pairs = -(-width // 2)
    for position in (0, 1, 19):
        theta = [position * 10_000 ** (-i / pairs) for i in range(pairs)]
        expected = ([math.sin(t) for t in theta] + [math.cos(t) for t in theta])[:width]
        torch.testing.assert_close(added[position], 0.5 * torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("part", [Rope(dim=12, base=100.0), Sinusoidal(dim=12, base=100.0)], ids=["rope", "sines"])
def test_in_a_plane_a_place_is_a_row_and_a_column(part: Position) -> None:
    """The same in planes of any width; and what the row gives and what the column gives are apart."""
    x = torch.ones(1, 1, 12, dtype=torch.float64)

    def at(row: int, column: int, columns: int) -> torch.Tensor:
        return seen(part.double(), x, torch.tensor([[row * columns + column]]), (9, columns))[0, 0].detach()

    places = {(row, column): at(row, column, 5) for row in range(4) for column in range(5)}
    for (row, column), features in places.items():
        torch.testing.assert_close(at(row, column, 8), features)
        for other, theirs in places.items():
            assert other == (row, column) or (features - theirs).abs().max() > 1e-3
    by_row = [0, 1, 2, 6, 7, 8]
    by_column = [3, 4, 5, 9, 10, 11]
    torch.testing.assert_close(at(2, 0, 5)[by_row], at(2, 3, 5)[by_row])
    torch.testing.assert_close(at(0, 3, 5)[by_column], at(2, 3, 5)[by_column])


def test_a_learned_position_needs_a_length_and_keeps_to_it() -> None:
    with pytest.raises(ConfigError, match="'learned' has one vector per position: set the model's max_seq_len"):
        LearnedConfig().build(context())
    part = LearnedConfig().build(context(max_seq_len=12))
    x = torch.zeros(1, 2, 8)
    assert torch.equal(seen(part, x, torch.tensor([[3, 11]])), part.table[[3, 11]][None])
    with pytest.raises(UnsupportedInputError, match=r"Learned is limited to 12 tokens.*got 13\. Raise max_seq_len"):
        seen(part, x, torch.tensor([[11, 12]]))


@pytest.mark.parametrize("name", ["rope", "sinusoidal"])
def test_a_model_in_half_precision_knows_where_it_is(name: str) -> None:
    """Frequencies kept in bfloat16 would be off by whole turns."""
    part = POSITIONS.get(name).load()().build(context(64))
    x, far = torch.randn(1, 1, 64, dtype=torch.float64), torch.tensor([[1_000_000]])
    exact = seen(part.double(), x, far)
    half = seen(part.bfloat16(), x.bfloat16(), far)
    assert (half - exact).norm() / exact.norm() < 0.01


def test_angles_stay_within_a_turn() -> None:
    theta = angles(torch.tensor([[0, 1, 10**7]]), 4, 10_000.0)
    assert theta.dtype == torch.float64
    assert theta.shape == (1, 3, 4)
    assert theta.min() >= 0
    assert theta.max() < 2 * math.pi
    assert theta[0, 2, 0].item() == pytest.approx(math.fmod(1e7, 2 * math.pi), abs=1e-8)


def test_indices_continue_where_a_state_ended_and_padding_stands_at_zero() -> None:
    x = torch.zeros(2, 4)
    assert positions_of(x, Rows(torch.tensor([4, 1])), None).tolist() == [[0, 1, 2, 3]]
    state = State("model", torch.tensor([10, 3]))
    assert positions_of(x, None, state).tolist() == [[10, 11, 12, 13], [3, 4, 5, 6]]
    assert positions_of(x, Rows(torch.tensor([4, 1])), state).tolist() == [[10, 11, 12, 13], [3, 0, 0, 0]]


@pytest.mark.parametrize("base", [1.0, 0.0, -5.0])
@pytest.mark.parametrize("config", [RopeConfig, SinusoidalConfig])
def test_a_base_that_makes_no_frequencies_is_refused(config: type[Config], base: float) -> None:
    with pytest.raises(ConfigError, match="base: Input should be greater than 1"):
        config.parse({"base": base})
