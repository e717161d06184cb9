"""How matrices begin: features of a normalised stream have its size at any width, and blocks change it little."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from spectral_core import fft_backend
from spectral_layers import FEEDFORWARDS, MIXERS, LayerContext
from spectral_layers.initialisation import init_input_projections, init_output_projections
from spectral_layers.projection import Projection

PARTS = [("mixer", entry.name) for entry in MIXERS] + [("feedforward", entry.name) for entry in FEEDFORWARDS]


@pytest.mark.parametrize("layer", [nn.Linear, Projection])
@pytest.mark.parametrize("width", [32, 1024])
def test_what_is_read_has_the_size_of_the_stream(layer: type[nn.Module], width: int) -> None:
    torch.manual_seed(0)
    projection = layer(width, 256, bias=False)
    init_input_projections(projection)
    assert projection(torch.randn(256, width)).std().item() == pytest.approx(1.0, rel=0.05)
    init_output_projections(projection)
    assert projection.weight.std().item() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize(("kind", "name"), PARTS)
def test_every_part_begins_as_a_small_change_at_any_width(kind: str, name: str) -> None:
    """Of a size that training can move at once, and below the stream's, so that what tokens are is not lost in it."""
    config = (MIXERS if kind == "mixer" else FEEDFORWARDS).get(name).load()()
    causal = kind != "mixer" or "causal" in config.directions
    for width in (32, 256):
        torch.manual_seed(0)
        part = config.build(LayerContext(width, causal, fft_backend("torch")))
        size = part(torch.randn(4, 64, width)).y.std().item()
        assert 0.01 < size < 0.8, f"{size:.4f} at {width} channels"
