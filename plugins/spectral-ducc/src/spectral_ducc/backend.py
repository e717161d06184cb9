"""The backend: ducc0 behind the interface of :class:`spectral_core.FFTBackend`."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from pydantic import PositiveInt
from torch import Tensor

from spectral_core import (
    FFTBackend,
    FFTBackendConfig,
    Mode,
    PreparedKernel,
    Request,
    Spectrum,
    Support,
    transform_dtype,
)
from spectral_ducc.convolution import convolve
from spectral_ducc.transforms import irfft, rfft

_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


class _Kernel(NamedTuple):
    """Taps that need a gradient, or (prepared) their spectrum as real pairs."""

    values: Tensor
    prepared: bool


class DuccFFT(FFTBackend):
    """ducc0's real transforms in blocks that stay in the cache, in memory shared with torch. CPU only.

    block_bytes, threads: as in :class:`DuccFFTConfig`. Rows that are contiguous in time and in the dtype of the
    transform are read where they lie; others (transposed, half precision) are copied once. Beyond that, extra memory
    is a few blocks for each thread, in both directions. M. Reinecke, https://gitlab.mpcdf.mpg.de/mtr/ducc.
    """

    name = "ducc/ducc0"

    def __init__(self, *, block_bytes: int | None = None, threads: int | None = None) -> None:
        for option, value in (("block_bytes", block_bytes), ("threads", threads)):
            if value is not None and value < 1:
                raise ValueError(f"{option} must be at least 1, or None; got {value}.")
        self.block_bytes = block_bytes
        self.threads = threads

    def unsupported_reasons(self, request: Request) -> list[str]:
        reasons = []
        if request.device != "cpu":
            reasons.append(f"ducc0 works in the memory of the CPU, and the input is on device {request.device!r}")
        if request.dtype not in _DTYPES:
            reasons.append(f"dtype {request.dtype} is neither float64, nor float32, float16 or bfloat16")
        return reasons

    def rfft(self, x: Tensor, n: int) -> Spectrum:
        pairs = rfft(x.to(transform_dtype(x.dtype)), n, self.block_bytes, self.threads)
        return Spectrum(pairs[..., 0], pairs[..., 1])

    def irfft(self, spectrum: Spectrum, n: int) -> Tensor:
        y: Tensor = irfft(*spectrum, n, self.block_bytes, self.threads)
        return y

    def prepare_kernel(self, kernel: Tensor, length: int, mode: Mode) -> PreparedKernel:
        support = Support.of(kernel.shape[-1], length, mode)
        values = support.place(kernel)
        prepared = not (torch.is_grad_enabled() and kernel.requires_grad)
        if prepared:
            values = rfft(values, support.points, self.block_bytes, self.threads)
        return self.prepared(kernel, length, mode, support, _Kernel(values, prepared))

    def convolution(
        self,
        u: Tensor,
        kernel: PreparedKernel,
        *,
        skip: Tensor | None = None,
        pre_gate: Tensor | None = None,
        post_gate: Tensor | None = None,
    ) -> Tensor:
        values, prepared = kernel.data
        plan = (kernel.points, kernel.offset, prepared, self.block_bytes, self.threads)
        y: Tensor = convolve(u, values, skip, pre_gate, post_gate, *plan)
        return y


class DuccFFTConfig(FFTBackendConfig):
    """ducc0 on the CPU, in cache-sized blocks of channels."""

    type: Literal["ducc/ducc0"] = "ducc/ducc0"
    block_bytes: PositiveInt | None = None
    """Padded signal and spectrum of a block of channels, in bytes, for each thread. None: 2 MiB, or four rows when
    these are more."""
    threads: PositiveInt | None = None
    """Threads that share the blocks. None: as many as torch uses."""

    def build(self) -> DuccFFT:
        return DuccFFT(block_bytes=self.block_bytes, threads=self.threads)
