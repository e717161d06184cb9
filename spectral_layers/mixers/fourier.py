"""Parameter-free mixing by a two-dimensional DFT."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from spectral_layers.mixers.base import Direction, Mixer, MixerConfig, MixerOutput
from spectral_layers.rows import Rows
from spectral_layers.state import State


class FourierConfig(MixerConfig):
    """Parameter-free 2-D DFT over time and channels; encoders only."""

    directions: ClassVar[frozenset[Direction]] = frozenset({"bidirectional"})

    type: Literal["fourier"] = "fourier"


class Fourier(Mixer[FourierConfig]):
    """y = Re(DFT over time of DFT over channels of x), orthonormal, each row over its own length.

    No parameters. Not causal, so for encoders only: every output depends on every token. O(L D log(L D)).
    Lee-Thorp et al., "FNet: mixing tokens with Fourier transforms", 2021.
    """

    streams = False

    def mix(self, x: Tensor, rows: Rows | None, state: State | None, return_state: bool) -> MixerOutput:
        if rows is None:
            return MixerOutput(self._transform(x))
        y = torch.zeros_like(x)
        for length, here in rows.by_length():
            y = y.index_put((here,), F.pad(self._transform(x[here, :length]), (0, 0, 0, x.shape[1] - length)))
        return MixerOutput(y)

    def _transform(self, x: Tensor) -> Tensor:
        """Z[k, d] = Re sum_t e^(-2 pi i t k / L) c[t, d], with c = a + ib the DFT over channels.

        Only half of the bins of either axis are computed. With A = Re DFT(a), even in k, and B = Im DFT(b), odd in k:
        Z[k, d] = A - B and Z[-k, d] = A + B. As x is real, c[t, -d] is the conjugate of c[t, d], which changes the
        sign of B: Z[k, -d] = Z[-k, d].
        """
        length, dim = x.shape[1:]
        channels = self.fft.rfft(x, dim)
        even = self.fft.rfft(channels.real.transpose(1, 2), length).real
        odd = self.fft.rfft(channels.imag.transpose(1, 2), length).imag
        # Extend both to L bins by symmetry; the index has the same size for even and odd L.
        k = torch.arange(length, device=x.device)
        mirrored = torch.minimum(k, length - k)
        even = even.index_select(-1, mirrored)
        odd = odd.index_select(-1, mirrored) * torch.where(k > mirrored, -1.0, 1.0).to(odd.dtype)
        first, last = even - odd, (even + odd)[:, 1 : (dim + 1) // 2].flip(1)
        return (torch.cat([first, last], 1) * (length * dim) ** -0.5).transpose(1, 2).to(x.dtype)
