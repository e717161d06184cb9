"""Fused CUDA kernels (:mod:`spectral_kernels`) behind the backend interface. Nothing here imports triton itself."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from spectral_core.backends.base import FFTBackendConfig, Mode, PreparedKernel, Request, Support
from spectral_core.backends.torch_fft import TorchFFT
from spectral_kernels.availability import missing
from spectral_kernels.gated_convolution.op import circle, gated_convolution, respond
from spectral_kernels.launch import LONGEST, PRECISION, points_for
from spectral_kernels.modulation.op import fits, modulation
from spectral_kernels.tracing import varies


class _Kernel(NamedTuple):
    """Taps from a lag on, or (prepared) their response."""

    values: Tensor
    first: int
    prepared: bool


class TritonFFT(TorchFFT):
    """Gate, padding, transform, product, inverse, crop, skip and gate in one CUDA launch while a row fits on chip.

    Up to 4096 complex points a row is one launch forward and one for all gradients of signals, beyond it is three
    passes over a float32 workspace of bounded size. Products are in IEEE float32 for float32 signals, three-pass TF32
    for float16, TF32 for bfloat16. Every mode, any length up to 2^22 tokens and any kernel. Modulation is one launch
    where the points have factors that fit (:func:`fits`), and refused where not; transforms by themselves are
    torch.fft's. Fu et al., FlashFFTConv, 2023 (the transform as matrix products); ``spectral_kernels`` has the
    derivations.
    """

    name = "triton"

    def unsupported_reasons(self, request: Request) -> list[str]:
        reasons = missing(request.device)
        if request.dtype not in PRECISION:
            reasons.append(f"dtype {str(request.dtype).removeprefix('torch.')} unsupported")
        if request.operator == "convolution":
            first, taps = _lags(request.taps, request.length, request.mode)
            points = points_for(circle(request.length, taps, first))
            if points > LONGEST:
                reasons.append(f"a transform of {2 * points} points; at most {2 * LONGEST}")
        elif request.operator == "modulation" and varies(request.length):
            reasons.append("the factors of a length that varies within a graph are unknown")
        elif request.operator == "modulation" and not fits(request.length):
            reasons.append(f"{request.length} points have no two or three factors up to 64 that fit a tile of 4096")
        return reasons

    def prepare_kernel(self, kernel: Tensor, length: int, mode: Mode) -> PreparedKernel:
        support = Support.of(kernel.shape[-1], length, mode)
        first, taps = _lags(kernel.shape[-1], length, mode)
        values = support.place(kernel)
        if mode == "circular":
            # The circle of L as lags -(L - 1) ... L - 1 of a linear convolution.
            values = F.pad(values, (0, length - values.shape[-1]))
            values = torch.cat([values[..., 1:], values], -1)
        assert values.shape[-1] == taps
        # A response computed here would be saved whole for the backward pass; the operator recomputes its own.
        prepared = not (torch.is_grad_enabled() and kernel.requires_grad)
        data = _Kernel(respond(values, length, first=first) if prepared else values, first, prepared)
        return self.prepared(kernel, length, mode, support, data)

    def convolution(
        self,
        u: Tensor,
        kernel: PreparedKernel,
        *,
        skip: Tensor | None = None,
        pre_gate: Tensor | None = None,
        post_gate: Tensor | None = None,
    ) -> Tensor:
        values, first, prepared = kernel.data
        return gated_convolution(u, values, skip, pre_gate, post_gate, first=first, prepared=prepared)

    def modulation(self, x: Tensor, gain: Tensor | None, phase: Tensor | None, n: int) -> Tensor:
        return modulation(x, gain, phase, n)


def _lags(taps: int, length: int, mode: Mode) -> tuple[int, int]:
    """The first lag at which a tap can reach the signal, and the number of lags from there."""
    if mode == "circular":
        return 1 - length, 2 * length - 1
    support = Support.of(taps, length, mode)
    return -support.offset, support.last - support.first


class TritonFFTConfig(FFTBackendConfig):
    """Fused CUDA kernels: one launch while a row fits on chip, three passes beyond."""

    type: Literal["triton"] = "triton"

    def build(self) -> TritonFFT:
        return TritonFFT()
