"""The bidirectional gated convolution against a direct sum over both sides of each token."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from spectral_core import convolve, fft_backend
from spectral_layers import Rows
from spectral_layers.mixers.gated_convolution import GatedConvolution, GatedConvolutionConfig
from spectral_layers.testing import MixerCase

DIM = 6


def made(*, causal: bool = False, taps: int = 4) -> GatedConvolution:
    config = GatedConvolutionConfig(filter={"type": "resonant", "modes": 3}, short_taps=taps)
    mixer = MixerCase(config, causal=causal, hidden_dim=DIM).build()
    assert isinstance(mixer, GatedConvolution)
    return mixer


def direct(mixer: GatedConvolution, x: Tensor) -> Tensor:
    """Token by token, over one row (L, D)."""
    length = x.shape[0]
    projected = x @ mixer.in_proj.weight.T
    taps, ahead = mixer.short.taps, (mixer.short.taps - 1) // 2
    short = mixer.short.bias.expand(length, -1).clone()
    for t in range(length):
        for s in range(taps):
            if 0 <= t + ahead - s < length:
                # conv1d correlates: the last weight meets the newest token.
                short[t] += mixer.short.weight[:, 0, taps - 1 - s] * projected[t + ahead - s]
    post, pre, value = short.chunk(3, -1)
    u = pre * value
    forward, reverse = mixer.filter.kernel(length).T, mixer.reverse.kernel(length).T
    y = mixer.skip * u
    for t in range(length):
        for s in range(length):
            if s <= t:
                y[t] += forward[t - s] * u[s]
            if s >= t:
                y[t] += reverse[s - t] * u[s]
    return (post * y) @ mixer.out_proj.weight.T


@pytest.mark.parametrize("taps", [1, 3, 4])
@pytest.mark.parametrize("length", [1, 2, 13])
@torch.no_grad()
def test_each_token_hears_both_sides(length: int, taps: int) -> None:
    mixer, x = made(taps=taps), torch.randn(length, DIM, dtype=torch.float64)
    expected = direct(mixer, x)
    assert expected.abs().max() > 1e-3
    assert F.l1_loss(mixer(x[None]).y[0], expected) < 1e-12


@torch.no_grad()
def test_both_sides_end_where_the_row_does() -> None:
    """What stands on padding, however loud, is heard neither by the long convolutions nor by the short ones."""
    mixer, x = made(), torch.randn(2, 13, DIM, dtype=torch.float64)
    x[1, 9:] = 1e3
    y = mixer(x, rows=Rows(torch.tensor([13, 9]))).y
    torch.testing.assert_close(y[1, :9], direct(mixer, x[1, :9]), rtol=1e-10, atol=1e-12)


@torch.no_grad()
def test_a_change_anywhere_is_heard_everywhere() -> None:
    mixer, x = made(), torch.randn(1, 20, DIM, dtype=torch.float64)
    before = mixer(x).y
    for token in (0, 10, 19):
        changed = x.clone()
        changed[:, token] += 1
        assert ((mixer(changed).y - before).abs().amax(-1) > 1e-9).all(), token


def test_a_decoder_has_one_filter_under_the_names_it_always_had() -> None:
    causal, both = (set(dict(made(causal=causal).named_parameters())) for causal in (True, False))
    assert {name.split(".")[0] for name in causal} == {"in_proj", "out_proj", "short", "filter", "skip"}
    assert both - causal == {name.replace("filter.", "reverse.") for name in causal if name.startswith("filter.")}


@torch.no_grad()
def test_what_one_direction_keeps_is_not_taken_for_the_other_s() -> None:
    mixer, fft = made().eval(), fft_backend("torch")
    x = torch.randn(1, DIM, 13, dtype=torch.float64)

    def both() -> list[Tensor]:
        centered = mixer.filter.prepared(13, fft, mixer.reverse)
        causal = mixer.filter.prepared(13, fft)
        return [convolve(x, causal, backend=fft), convolve(x, centered, mode="centered", backend=fft)]

    first, again = both(), both()
    assert (first[0] - first[1]).abs().max() > 1e-3
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    torch.testing.assert_close(first[0], convolve(x, mixer.filter.kernel(13), backend=fft))
