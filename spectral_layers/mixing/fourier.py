"""Parameter-free mixing by a two-dimensional DFT."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from spectral_core import Spectrum
from spectral_layers.context import LayerContext
from spectral_layers.mixing.base import Direction, Mixer, MixerConfig, MixerOutput
from spectral_layers.rows import Rows
from spectral_layers.state import State


class Fourier(Mixer):
    """y = Re(DFT over time of DFT over channels of x), orthonormal, each row over its own length.

    No parameters. Every output sees every token, so it serves encoders only. O(L D log(L D)).
    Lee-Thorp et al., "FNet: mixing tokens with Fourier transforms", 2021.
    """

    streams = False

    def mix(self, x: Tensor, rows: Rows | None, state: State | None, return_state: bool) -> MixerOutput:
        if rows is None:
            return MixerOutput(self._transform(x))
        y = torch.zeros_like(x)
        for length in rows.lengths.unique().tolist():
            if length:
                here = (rows.lengths == length).nonzero()[:, 0]
                part = self._transform(x[here, :length])
                y = y.index_put((here,), F.pad(part, (0, 0, 0, x.shape[1] - length)))
        return MixerOutput(y)

    def _transform(self, x: Tensor) -> Tensor:
        channels = _whole(self.fft.rfft(x, x.shape[2]), x.shape[2])
        # Re F(a + ib) = Re F(a) - Im F(b), with real transforms over time.
        real = _whole(self.fft.rfft(channels.real.transpose(1, 2), x.shape[1]), x.shape[1]).real
        imag = _whole(self.fft.rfft(channels.imag.transpose(1, 2), x.shape[1]), x.shape[1]).imag
        return ((real - imag) * (x.shape[1] * x.shape[2]) ** -0.5).transpose(1, 2).to(x.dtype)


def _whole(half: Spectrum, n: int) -> Spectrum:
    """All n bins of a real signal's spectrum from its first n // 2 + 1: the rest are conjugates."""
    mirrored = slice(1, (n + 1) // 2)
    real = torch.cat([half.real, half.real[..., mirrored].flip(-1)], -1)
    imag = torch.cat([half.imag, -half.imag[..., mirrored].flip(-1)], -1)
    return Spectrum(real, imag)


class FourierConfig(MixerConfig):
    """Parameter-free 2-D DFT over time and channels; encoders only."""

    directions: ClassVar[frozenset[Direction]] = frozenset({"bidirectional"})

    type: Literal["fourier"] = "fourier"

    def build(self, context: LayerContext) -> Fourier:
        return Fourier(context)
