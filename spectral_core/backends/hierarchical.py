"""Exact convolution in blocks of channels: pad, transform, product, inverse and gates stay in the cache.

A whole-tensor convolution streams the padded signal and its spectrum through memory four times. Channels do not
mix, so the same work done a few channels at a time touches memory once: 2-4 times as fast on a CPU, in O(block)
extra memory.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor

from spectral_core.backends.base import FFTBackendConfig, PreparedKernel
from spectral_core.backends.torch_fft import TorchFFT

# Working set of a block. Half of a common last-level cache share: measured best of 1-32 MiB on two cores.
_BLOCK_BYTES = 8 << 20


class HierarchicalFFT(TorchFFT):
    """The torch backend's arithmetic, a block of channels at a time.

    channel_block: channels in a block; None sizes it so that a block's working set is 8 MiB.
    """

    name = "hierarchical"

    def __init__(self, *, channel_block: int | None = None) -> None:
        if channel_block is not None and channel_block < 1:
            raise ValueError(f"channel_block must be at least 1; got {channel_block}.")
        self.channel_block = channel_block

    def convolution(
        self,
        u: Tensor,
        kernel: PreparedKernel,
        *,
        skip: Tensor | None = None,
        pre_gate: Tensor | None = None,
        post_gate: Tensor | None = None,
    ) -> Tensor:
        width = self._width(u, kernel.points)
        if width >= u.shape[1]:
            return super().convolution(u, kernel, skip=skip, pre_gate=pre_gate, post_gate=post_gate)
        blocks = []
        for start in range(0, u.shape[1], width):
            here = slice(start, start + width)
            blocks.append(
                super().convolution(
                    u[:, here],
                    _channels(kernel, here),
                    skip=None if skip is None else skip[here],
                    pre_gate=None if pre_gate is None else pre_gate[:, here],
                    post_gate=None if post_gate is None else post_gate[:, here],
                )
            )
        return torch.cat(blocks, dim=1)

    def modulation(self, x: Tensor, gain: Tensor | None, phase: Tensor | None, n: int) -> Tensor:
        width = self._width(x, n)
        if width >= x.shape[1]:
            return super().modulation(x, gain, phase, n)
        full = (*x.shape[:2], n // 2 + 1)
        gain = None if gain is None else gain.expand(full)
        phase = None if phase is None else phase.expand(full)
        blocks = []
        for start in range(0, x.shape[1], width):
            here = slice(start, start + width)
            field = [None if part is None else part[:, here] for part in (gain, phase)]
            blocks.append(super().modulation(x[:, here], field[0], field[1], n))
        return torch.cat(blocks, dim=1)

    def _width(self, u: Tensor, points: int) -> int:
        """Channels per block: the padded signal and two spectra of every row of the batch."""
        if self.channel_block is not None:
            return self.channel_block
        size = 8 if u.dtype == torch.float64 else 4
        return max(1, _BLOCK_BYTES // max(1, u.shape[0] * points * size * 3))


def _channels(kernel: PreparedKernel, here: slice) -> PreparedKernel:
    data = kernel.data[..., here, :]
    return PreparedKernel(
        kernel.backend,
        kernel.mode,
        kernel.length,
        data.shape[-2],
        kernel.batch,
        kernel.points,
        kernel.offset,
        kernel.dtype,
        data,
    )


class HierarchicalFFTConfig(FFTBackendConfig):
    """Exact transforms in cache-sized blocks of channels."""

    type: Literal["hierarchical"] = "hierarchical"
    channel_block: PositiveInt | None = None
    """Channels transformed together; null sizes the block to the cache."""

    def build(self) -> HierarchicalFFT:
        return HierarchicalFFT(channel_block=self.channel_block)
