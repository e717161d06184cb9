"""Exact convolution in blocks that stay in the cache (:mod:`.blocks`), behind the backend interface."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from spectral_core.backends.base import FFTBackendConfig, Mode, PreparedKernel, Support, transform_dtype
from spectral_core.backends.blocks import Plan, block_rows, convolve_blocks, respond_blocks
from spectral_core.backends.layouts import Whole
from spectral_core.backends.torch_fft import TorchFFT
from spectral_core.config import Length
from spectral_kernels.tracing import transformed, varies


class _Kernel(NamedTuple):
    """Taps that will need a gradient, or (prepared) their response as real pairs."""

    values: Tensor
    plan: Plan


class HierarchicalFFT(TorchFFT):
    """Exact convolution in blocks of channels that stay in the cache, and in chunks of time where the signal is long.

    chunk_size: tokens in a chunk. A transform of more than 16 chunks is computed in two levels, or for short kernels in
    overlapping segments, whichever is less work (:func:`layout_of`). A chunk is never longer than the sequence, and
    grows so that there are at most 64.
    block_bytes: working set of a block, for each thread: padded signal, spectrum and output of as many channels as fit.
    None means 4 MiB, or eight channels if these are more and the transform is whole.
    """

    name = "hierarchical"

    def __init__(self, *, chunk_size: int = 8192, block_bytes: int | None = None) -> None:
        self.chunk_size = chunk_size
        self.block_bytes = block_bytes

    def prepare_kernel(self, kernel: Tensor, length: int, mode: Mode) -> PreparedKernel:
        support = Support.of(kernel.shape[-1], length, mode)
        # A spectrum computed here would be saved whole for the backward pass, so blocks compute their own. In a graph
        # for many lengths its layout is unknown, and torch.func has no rule for the operator that computes it.
        prepared = not ((torch.is_grad_enabled() and kernel.requires_grad) or varies(length) or transformed())
        plan = Plan(list(support), mode == "circular", prepared, self.chunk_size, self.block_bytes)
        values = respond_blocks(kernel, length, *plan) if prepared else kernel
        return self.prepared(kernel, length, mode, support, _Kernel(values, plan))

    def convolution(
        self,
        u: Tensor,
        kernel: PreparedKernel,
        *,
        skip: Tensor | None = None,
        pre_gate: Tensor | None = None,
        post_gate: Tensor | None = None,
    ) -> Tensor:
        values, plan = kernel.data
        if transformed():  # blocks are an operator, for which torch.func has no rules
            return super().convolution(u, _whole(kernel), skip=skip, pre_gate=pre_gate, post_gate=post_gate)
        y: Tensor = convolve_blocks(u, values, skip, pre_gate, post_gate, *plan)
        return y

    def modulation(self, x: Tensor, gain: Tensor | None, phase: Tensor | None, n: int) -> Tensor:
        rows = block_rows(Whole(n, Support.of(1, n, "causal")), transform_dtype(x.dtype), x.device, self.block_bytes)
        width = max(1, rows // max(1, x.shape[0]))
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


def _whole(kernel: PreparedKernel) -> PreparedKernel:
    """The same kernel as its transform of all points."""
    values, plan = kernel.data
    support = Support(*plan.support)
    if plan.prepared:
        taps = plan.layout(kernel.length).taps(torch.view_as_complex(values))[..., : support.last - support.first]
    else:
        taps = support.place(values)
    return replace(kernel, data=torch.fft.rfft(taps, n=support.points))


class HierarchicalFFTConfig(FFTBackendConfig):
    """Exact transforms in cache-sized blocks of channels and chunks of time."""

    type: Literal["hierarchical"] = "hierarchical"
    chunk_size: Length = 8192
    """Tokens in a chunk of a long sequence; reduced to the sequence."""
    block_bytes: Length | None = None
    """Working set of a block of channels, in bytes, for each thread: about what its cache holds. Null chooses."""

    def build(self) -> HierarchicalFFT:
        return HierarchicalFFT(chunk_size=self.chunk_size, block_bytes=self.block_bytes)
