"""Sequences taken in segments: the numbers of the whole, and no memory for pieces that have been placed."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from spectral_kernels.delta_rule import chunked
from spectral_layers import MIXERS, MixerConfig, Rows, segments
from spectral_layers.mixers import holographic
from spectral_layers.mixers.holographic import HolographicConfig
from spectral_layers.short_convolution import ShortConvolution
from spectral_layers.testing import MixerCase

DELTA_RULE = HolographicConfig(update="delta")
STREAMING = [
    *(MIXERS.get(name).load()() for name in ("gated_convolution", "holographic", "multiscale", "spectral_product")),
    DELTA_RULE,
]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of eight tokens a row, so that short sequences have several."""
    monkeypatch.setattr(segments, "_TOKENS", 16)
    monkeypatch.setattr(segments, "_FEWEST", 8)
    monkeypatch.setattr(chunked, "_CHUNK", 4)


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("config", STREAMING, ids=lambda config: config.type)
def test_segments_change_no_number(config: MixerConfig, ragged: bool, short: None) -> None:
    """Outputs and what follows them: with gradients the sequence is whole, without them in segments."""
    torch.manual_seed(0)
    mixer = MixerCase(config, hidden_dim=32).build()
    x, more = torch.randn(2, 29, 32, dtype=torch.float64), torch.randn(2, 5, 32, dtype=torch.float64)
    rows = Rows(torch.tensor([29, 11])) if ragged else None
    whole = mixer(x, rows=rows, return_state=True)
    with torch.no_grad():
        assert len(segments.segments(x)) == 4
        parts = mixer(x, rows=rows, return_state=True)
        after = mixer(more, state=parts.state).y
    real = torch.ones(2, 29, dtype=torch.bool) if rows is None else rows.mask(29)
    torch.testing.assert_close(parts.y[real], whole.y.detach()[real], rtol=1e-9, atol=1e-9)
    assert whole.y.detach()[real].abs().max() > 1e-3
    torch.testing.assert_close(after, mixer(more, state=whole.state).y.detach(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("config", [HolographicConfig(), DELTA_RULE], ids=["added", "corrected"])
def test_memories_of_many_chunks_have_the_gradients_of_few(
    config: HolographicConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    mixer = MixerCase(config, hidden_dim=32).build()
    x = torch.randn(1, 40, 32, dtype=torch.float64, requires_grad=True)
    made = []
    for chunk, segment in ((64, 2048), (4, 2048), (4, 12)):
        monkeypatch.setattr(chunked, "_CHUNK", chunk)
        monkeypatch.setattr(holographic, "_SEGMENT", segment)
        y = mixer(x).y
        made.append([y, *torch.autograd.grad(y.square().sum(), [x, *mixer.parameters()])])
    for others in made[1:]:
        torch.testing.assert_close(others, made[0], rtol=1e-8, atol=1e-8)


def test_a_piece_is_let_go_before_the_next_is_made() -> None:
    made: list[weakref.ref[Tensor]] = []

    def pieces() -> Iterator[Tensor]:
        for value in range(3):
            assert all(piece() is None for piece in made[:-1])
            piece = torch.full((1, 4, 2), float(value))
            made.append(weakref.ref(piece))
            yield piece

    with torch.no_grad():
        y = segments.joined(pieces(), 12, dim=1)
    assert y[0, :, 0].tolist() == [0.0] * 4 + [1.0] * 4 + [2.0] * 4


@pytest.mark.parametrize("copies", [1, 3])
def test_one_token_is_convolved_as_many_are(copies: int) -> None:
    torch.manual_seed(0)
    short = ShortConvolution(5, copies=copies).double()
    torch.nn.init.normal_(short.bias)
    x = torch.randn(2, 5, 9, dtype=torch.float64)
    whole = short.each(x)
    recent = short.next_past(x[..., :1], None, None)
    for t in range(1, 9):
        for one, many in zip(short.each(x[..., t : t + 1], recent), whole, strict=True):
            torch.testing.assert_close(one, many[..., t : t + 1])
        recent = short.next_past(x[..., t : t + 1], None, recent)


@pytest.mark.parametrize("lengths", [None, (1200, 40)])
def test_causal_gating_takes_its_blocks_in_groups(
    lengths: tuple[int, ...] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    config = MIXERS.get("spectral_gating").load().model_validate({"head_dim": 8, "sparsity": "fixed"})
    mixer = MixerCase(config, hidden_dim=16).build().eval()
    x = torch.randn(2, 1200, 16, dtype=torch.float64)
    rows = None if lengths is None else Rows(torch.tensor(lengths))
    whole = mixer(x, rows=rows)
    designed: list[int] = []
    design = mixer._design
    monkeypatch.setattr(mixer, "_design", lambda used: designed.append(len(used)) or design(used))
    with torch.no_grad():
        grouped = mixer(x, rows=rows)
    assert max(designed) <= 32 < sum(designed)
    real = slice(None) if rows is None else rows.mask(1200)
    torch.testing.assert_close(grouped.y[real], whole.y[real], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(grouped.metrics, {name: each.detach() for name, each in whole.metrics.items()})
