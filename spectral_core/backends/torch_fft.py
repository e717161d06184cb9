"""The reference backend: torch.fft on whole tensors, on any device torch has an FFT for."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from spectral_core.backends.base import (
    FFTBackend,
    FFTBackendConfig,
    Mode,
    PreparedKernel,
    Spectrum,
    Support,
    transform_dtype,
)


class TorchFFT(FFTBackend):
    """torch.fft, in one go: the padded signal, its spectrum and their products are whole tensors."""

    name = "torch"
    higher_order = True

    def rfft(self, x: Tensor, n: int) -> Spectrum:
        x = x.to(transform_dtype(x.dtype))
        if x.numel() == 0:  # some libraries refuse to transform nothing
            nothing = x.new_empty(*x.shape[:-1], n // 2 + 1)
            return Spectrum(nothing, nothing)
        spectrum = torch.fft.rfft(x, n=n)
        return Spectrum(spectrum.real, spectrum.imag)

    def irfft(self, spectrum: Spectrum, n: int) -> Tensor:
        if spectrum.real.numel() == 0:
            return spectrum.real.new_empty(*spectrum.real.shape[:-1], n)
        return torch.fft.irfft(_real_ends(*spectrum, n), n=n)

    def prepare_kernel(self, kernel: Tensor, length: int, mode: Mode) -> PreparedKernel:
        support = Support.of(kernel.shape[-1], length, mode)
        spectrum = torch.fft.rfft(support.place(kernel), n=support.points)
        return self.prepared(kernel, length, mode, support, spectrum)

    def plain_convolution(self, x: Tensor, kernel: PreparedKernel) -> Tensor:
        product = torch.fft.rfft(x, n=kernel.points) * kernel.data
        y: Tensor = torch.fft.irfft(product, n=kernel.points)
        return y[..., kernel.offset : kernel.offset + x.shape[-1]]

    def modulation(self, x: Tensor, gain: Tensor | None, phase: Tensor | None, n: int) -> Tensor:
        spectrum = torch.fft.rfft(x.to(transform_dtype(x.dtype)), n=n)
        if phase is not None:
            spectrum = spectrum * torch.complex(torch.cos(phase), torch.sin(phase)).to(spectrum.dtype)
        if gain is not None:
            spectrum = spectrum * gain
        return torch.fft.irfft(_real_ends(spectrum.real, spectrum.imag, n), n=n).to(x.dtype).contiguous()


def _real_ends(real: Tensor, imag: Tensor, n: int) -> Tensor:
    """The spectrum without imaginary parts at DC and Nyquist: libraries differ in what they do with them."""
    # By comparison, not by a branch on n being even, which would split a graph for many lengths in two.
    turns = 2 * torch.arange(imag.shape[-1], device=imag.device)
    return torch.complex(real, torch.where((turns > 0) & (turns < n), imag, 0.0))


class TorchFFTConfig(FFTBackendConfig):
    """torch.fft on whole tensors: the reference."""

    type: Literal["torch"] = "torch"

    def build(self) -> TorchFFT:
        return TorchFFT()
