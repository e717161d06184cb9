"""How the matrices of layers begin."""

from __future__ import annotations

from torch import nn

from spectral_layers.projection import Projection


def begin_reading(*projections: nn.Linear | Projection) -> None:
    """W ~ N(0, 1 / inputs): what is made of a normalised stream has its size, whatever the width.

    A standard deviation of 0.02 does that at 2,500 channels. At 128 it made a fifth, so scores of attention and
    products of gates began near constant: two layers of attention with a short convolution had not begun to recall
    after 500 steps (``benchmarks/recall.py``, where with this two seeds of three do).
    """
    for projection in projections:
        nn.init.normal_(projection.weight, std=projection.weight.shape[1] ** -0.5)


def begin_writing(*projections: nn.Linear | Projection) -> None:
    """W ~ N(0, 0.02^2): what a layer adds grows with the root of the width, as the scaled embeddings it is added to."""
    for projection in projections:
        nn.init.normal_(projection.weight, std=0.02)
