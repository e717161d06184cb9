"""The backend for TPUs, and for exporters: transforms as real matrix products (:mod:`.matrix_dft`)."""

from __future__ import annotations

import sys
from typing import Literal

import torch
from torch import Tensor

from spectral_core.backends import matrix_dft
from spectral_core.backends.base import (
    FFTBackend,
    FFTBackendConfig,
    Request,
    Spectrum,
    transform_dtype,
    without_autocast,
)


class XlaFFT(FFTBackend):
    """DFTs as real matrix products: static shapes, plain aten operators, no complex numbers, no FFT call.

    torch_xla sends torch.fft to the host; matrix products stay on the TPU's matrix units. The same path exports to ONNX
    and runs on any device, slower there than an FFT. Any length. Matrices and factors, O(n) numbers, are computed in
    float64 and kept; autograd keeps nothing else for a transform.

    Products must be in the precision of their dtype: a TPU would round float32 factors to bfloat16, a GPU with TF32 to
    ten bits, an error of 1e-3. Where the process allows that, the backend refuses and names the setting.
    """

    name = "xla"
    higher_order = True

    def unsupported_reasons(self, request: Request) -> list[str]:
        if transform_dtype(request.dtype) == torch.float64:
            return []
        rounded, setting = _rounding(request.device)
        return [f'float32 matrix products are rounded ({rounded}); call {setting}("highest") first'] if rounded else []

    def rfft(self, x: Tensor, n: int) -> Spectrum:
        with without_autocast(x.device.type):
            return Spectrum(*matrix_dft.rfft(x.to(transform_dtype(x.dtype)), n))

    def irfft(self, spectrum: Spectrum, n: int) -> Tensor:
        with without_autocast(spectrum.real.device.type):
            return matrix_dft.irfft(*spectrum, n)


def _rounding(device: str) -> tuple[str | None, str]:
    """The precision of float32 products on a type of device (None: full), and the function that sets it."""
    if device == "xla" and "torch_xla" in sys.modules:
        from torch_xla import backends

        # No product in torch_xla has a precision of its own: it is the process's, read when a graph is lowered.
        precision = backends.get_mat_mul_precision()
        return None if precision == "highest" else precision, "torch_xla.backends.set_mat_mul_precision"
    library = torch.backends.cuda if device == "cuda" else torch.backends.mkldnn
    precision = library.matmul.fp32_precision
    return None if precision in ("none", "ieee") else precision, "torch.set_float32_matmul_precision"


_rounding._dynamo_marked_constant = True  # type: ignore[attr-defined]  # a trace keeps what it returned


class XlaFFTConfig(FFTBackendConfig):
    """Transforms as real matrix products: for TPUs and exporters."""

    type: Literal["xla"] = "xla"

    def build(self) -> XlaFFT:
        return XlaFFT()
