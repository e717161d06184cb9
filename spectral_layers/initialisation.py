"""Initialisation of the linear layers of blocks."""

from __future__ import annotations

from torch import nn

from spectral_layers.projection import Projection


def init_input_projections(*projections: nn.Linear | Projection) -> None:
    """W ~ N(0, 1 / inputs): keeps unit variance at any width.

    The usual standard deviation of 0.02 does so at 2,500 channels only. At 128 it shrinks features to a fifth, so
    attention scores and products of gates start nearly constant: two layers of attention with a short convolution did
    not learn to recall within 500 steps; with this one two seeds of three do (``benchmarks/recall.py``).
    """
    for projection in projections:
        nn.init.normal_(projection.weight, std=projection.weight.shape[1] ** -0.5)


def init_output_projections(*projections: nn.Linear | Projection) -> None:
    """W ~ N(0, 0.02^2): layer outputs grow with sqrt(width), as do the scaled embeddings that they are added to."""
    for projection in projections:
        nn.init.normal_(projection.weight, std=0.02)
