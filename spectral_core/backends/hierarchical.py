"""Exact convolution in blocks that stay in the cache (:mod:`.blocks`), behind the backend interface."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from pydantic import PositiveInt
from torch import Tensor

from spectral_core.backends.base import FFTBackendConfig, Mode, PreparedKernel, Support
from spectral_core.backends.blocks import convolve_blocks
from spectral_core.backends.torch_fft import TorchFFT

_BLOCK_BYTES = 8 << 20
"""A few times a core's L2: smaller blocks spend their time on calls, larger ones leave the cache."""
_LEAST_ROWS = 4
"""Torch plans every transform anew, so a block of fewer rows spends its time on plans."""


class _Kernel(NamedTuple):
    """Taps that will need a gradient, or (prepared) their spectrum as real pairs."""

    values: Tensor
    support: Support
    prepared: bool


class HierarchicalFFT(TorchFFT):
    """The torch backend's transforms, a block of channels at a time, in O(block) extra memory.

    block_bytes: working set of a block: the padded signal, its spectrum and the output of as many channels as fit. None
    takes 8 MiB, or four channels of one row where these are more.
    """

    name = "hierarchical"

    def __init__(self, *, block_bytes: int | None = None) -> None:
        if block_bytes is not None and block_bytes < 1:
            raise ValueError(f"block_bytes must be at least 1; got {block_bytes}.")
        self.block_bytes = block_bytes

    def prepare_kernel(self, kernel: Tensor, length: int, mode: Mode) -> PreparedKernel:
        support = Support.of(kernel.shape[-1], length, mode)
        if torch.is_grad_enabled() and kernel.requires_grad:
            # A spectrum made here would be kept whole for the backward pass; blocks make theirs as they go.
            return self._prepared(kernel, length, mode, support, _Kernel(kernel, support, prepared=False))
        spectrum = torch.view_as_real(torch.fft.rfft(support.place(kernel), n=support.points))
        return self._prepared(kernel, length, mode, support, _Kernel(spectrum, support, prepared=True))

    def convolution(
        self,
        u: Tensor,
        kernel: PreparedKernel,
        *,
        skip: Tensor | None = None,
        pre_gate: Tensor | None = None,
        post_gate: Tensor | None = None,
    ) -> Tensor:
        values, support, prepared = kernel.data
        size = self._block_bytes(support.points, kernel.dtype)
        y: Tensor = convolve_blocks(u, values, skip, pre_gate, post_gate, list(support), prepared, size)
        return y

    def modulation(self, x: Tensor, gain: Tensor | None, phase: Tensor | None, n: int) -> Tensor:
        width = max(1, self._block_bytes(n, x.dtype) // max(1, 3 * x.shape[0] * n * x.element_size()))
        if width >= x.shape[1]:
            return super().modulation(x, gain, phase, n)
        full = (*x.shape[:2], n // 2 + 1)
        fields = [None if field is None else field.expand(full) for field in (gain, phase)]
        blocks = []
        for start in range(0, x.shape[1], width):
            here = slice(start, start + width)
            gain, phase = (None if field is None else field[:, here] for field in fields)
            blocks.append(super().modulation(x[:, here], gain, phase, n))
        return torch.cat(blocks, dim=1)

    def _block_bytes(self, points: int, dtype: torch.dtype) -> int:
        return self.block_bytes or max(_BLOCK_BYTES, _LEAST_ROWS * 3 * points * dtype.itemsize)


class HierarchicalFFTConfig(FFTBackendConfig):
    """Exact transforms in cache-sized blocks of channels."""

    type: Literal["hierarchical"] = "hierarchical"
    block_bytes: PositiveInt | None = None
    """Working set of a block of channels, in bytes: about what the processor's caches hold. Null chooses."""

    def build(self) -> HierarchicalFFT:
        return HierarchicalFFT(block_bytes=self.block_bytes)
