"""What a causal gate reports counts real blocks only, as in an encoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from spectral_core import fft_backend
from spectral_layers import Gate, LayerContext, Modulation, Rows, SpectralView
from spectral_layers.mixers.spectral_gating import SpectralGating


class Loudness(Gate):
    def setup(self, config: Any, context: Any) -> None:
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, view: SpectralView) -> Modulation:
        level: Tensor = view.magnitude.mean() * self.weight
        return Modulation(gain=self.weight.expand(1, 1, 1, 1), losses={"level": level})


def with_loudness(context: LayerContext) -> SpectralGating:
    mixer = SpectralGating(context, head_dim=4, block=4, window=8)
    mixer.gates[0] = Loudness(heads=2, head_dim=4)
    return mixer


def test_losses_of_causal_gates_ignore_padding() -> None:
    context = LayerContext(hidden_dim=8, causal=True, fft=fft_backend("torch"))
    mixer = with_loudness(context)
    x = torch.randn(2, 32, 8, generator=torch.Generator().manual_seed(0))
    rows = Rows(torch.tensor([12, 12]))
    alone = mixer(x[:, :12])
    padded = mixer(x, rows=rows)
    (name,) = alone.losses
    torch.testing.assert_close(padded.losses[name], alone.losses[name])
    torch.testing.assert_close(padded.y[:, :12], alone.y)


def test_gates_run_where_every_row_is_empty() -> None:
    """A batch of finished rows must still leave a gradient on every parameter."""
    context = LayerContext(hidden_dim=8, causal=True, fft=fft_backend("torch"))
    mixer = with_loudness(context)
    mixer(torch.randn(2, 5, 8), rows=Rows(torch.tensor([0, 0]))).y.sum().backward()
    assert all(parameter.grad is not None for parameter in mixer.parameters())
