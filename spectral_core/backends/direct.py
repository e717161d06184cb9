"""Short kernels by the direct sum, without a transform."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from spectral_core.backends.base import (
    FFTBackendConfig,
    Mode,
    PreparedKernel,
    Support,
    without_autocast,
)
from spectral_core.backends.torch_fft import TorchFFT


class Direct(TorchFFT):
    """Convolution as a depthwise sum over taps, O(D L K): for short kernels, and a check of the others.

    Transforms and modulation are the torch backend's.
    """

    name = "direct"

    def prepare_kernel(self, kernel: Tensor, length: int, mode: Mode) -> PreparedKernel:
        support = Support.of(kernel.shape[-1], length, mode)
        taps = support.place(kernel).flip(-1)  # conv1d correlates
        return self.prepared(kernel, length, mode, support, taps)

    def plain_convolution(self, x: Tensor, kernel: PreparedKernel) -> Tensor:
        taps: Tensor = kernel.data
        width = taps.shape[-1]
        if kernel.mode == "circular":
            padded = torch.cat([x[..., x.shape[-1] - width + 1 :], x], -1) if width > 1 else x
        else:
            padded = F.pad(x, (width - 1 - kernel.offset, kernel.offset))
        batch, channels, length = x.shape
        with without_autocast(x.device.type):
            if taps.dim() == 3:
                folded = padded.reshape(1, batch * channels, -1)
                y = F.conv1d(folded, taps.flatten(0, 1)[:, None], groups=batch * channels)
                return y.view(batch, channels, length)
            return F.conv1d(padded, taps[:, None], groups=channels)


class DirectConfig(FFTBackendConfig):
    """Short kernels by the direct sum."""

    type: Literal["direct"] = "direct"

    def build(self) -> Direct:
        return Direct()
