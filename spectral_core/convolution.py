"""Long convolution: the first of the two spectral operators."""

from __future__ import annotations

import torch
from torch import Tensor

from spectral_core.axes import describe
from spectral_core.backends.base import MODES, FFTBackend, Mode, PreparedKernel, Request
from spectral_core.backends.selection import fft_backend
from spectral_core.errors import UnsupportedInputError


def convolve(
    u: Tensor,
    kernel: Tensor | PreparedKernel,
    *,
    mode: Mode = "causal",
    skip: Tensor | None = None,
    pre_gate: Tensor | None = None,
    post_gate: Tensor | None = None,
    backend: str | FFTBackend = "auto",
) -> Tensor:
    """Long convolution by FFT: y = post_gate * (kernel conv v + skip * v) with v = pre_gate * u.

    u: (B, D, L), real, any strides. kernel: (D, K) or one per row (B, D, K), any K, or a kernel prepared for this
    mode and length by :func:`prepare_kernel`.
    pre_gate, post_gate: (B, D, L). skip: (D,). Returns a contiguous (B, D, L) in u's dtype.

    mode ``causal``: y[t] = sum_s kernel[s] v[t-s]. ``circular``: the same with t-s modulo L, so a kernel longer than
    L wraps. ``centered``: y[t] = sum_s kernel[s] v[t-s+K//2]. The linear modes are zero-padded to a fast length at
    which nothing wraps onto an output; no tap is truncated. Only ``causal`` keeps the future out, and only if the
    gates and the kernel are computed from nothing later than t.

    Half precision is transformed in float32 and cast back. Differentiable in every tensor argument.
    O(B D (L+K) log(L+K)). backend: a name (never falls back), or one made by :func:`fft_backend`.
    Raises UnsupportedInputError for integer or complex input, mismatched shapes and empty sequences.
    Oppenheim & Schafer, Discrete-Time Signal Processing, section 8.7.
    """
    fft = fft_backend(backend) if isinstance(backend, str) else backend
    _check_mode(mode)
    _check_signal("u", u)
    for name, gate in (("pre_gate", pre_gate), ("post_gate", post_gate)):
        if gate is not None:
            _check_signal(name, gate)
            if gate.shape != u.shape:
                raise UnsupportedInputError(f"{name} {describe(gate)} must have u's shape {tuple(u.shape)}.")
    if skip is not None and (skip.shape != u.shape[1:2] or not skip.dtype.is_floating_point):
        raise UnsupportedInputError(f"skip {describe(skip)} must be (D,) = ({u.shape[1]},), real floating point.")
    if isinstance(kernel, PreparedKernel):
        _check_prepared(kernel, u, mode, fft)
    else:
        _check_kernel(kernel)
        _check_fit(kernel.shape[-2], kernel.shape[0] if kernel.dim() == 3 else None, u)
    taps = None if isinstance(kernel, PreparedKernel) else kernel
    for name, other in (("kernel", taps), ("skip", skip), ("pre_gate", pre_gate), ("post_gate", post_gate)):
        if other is not None and other.device != u.device:
            raise UnsupportedInputError(f"{name} is on {other.device} and u on {u.device}; move them together.")
    if u.shape[0] == 0:
        return u.clone(memory_format=torch.contiguous_format)  # libraries differ in transforms of nothing
    if not isinstance(kernel, PreparedKernel):
        if u.dtype == torch.float64:
            kernel = kernel.double()
        given = (u, kernel, skip, pre_gate, post_gate)
        grad = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in given)
        kernel = prepare_kernel(kernel, u.shape[-1], mode=mode, backend=fft, grad=grad)
    return kernel.backend.convolution(u, kernel, skip=skip, pre_gate=pre_gate, post_gate=post_gate)


def prepare_kernel(
    kernel: Tensor,
    length: int,
    *,
    mode: Mode = "causal",
    backend: str | FFTBackend = "auto",
    grad: bool = False,
) -> PreparedKernel:
    """The spectrum of a kernel, for reuse with many signals of one length.

    kernel: (D, K) or (B, D, K). grad: whether the signals will need gradients, which the choice of backend may use.
    Raises UnsupportedInputError when the backend cannot serve it.
    """
    fft = fft_backend(backend) if isinstance(backend, str) else backend
    _check_mode(mode)
    if length < 1:
        raise UnsupportedInputError(f"the length of a signal must be at least 1; got {length}.")
    _check_kernel(kernel)
    grad = grad or (torch.is_grad_enabled() and kernel.requires_grad)
    request = Request.of("convolution", kernel, length, taps=kernel.shape[-1], mode=mode, grad=grad, dtype=kernel.dtype)
    return fft.select(request).prepare_kernel(kernel, length, mode)


def _check_mode(mode: str) -> None:
    if mode not in MODES:
        raise UnsupportedInputError(f"mode {mode!r} is not one of {', '.join(MODES)}.")


def _check_signal(name: str, x: Tensor) -> None:
    if x.dim() != 3 or not x.dtype.is_floating_point:
        raise UnsupportedInputError(f"{name} must be (B, D, L), real floating point; got {describe(x)}.")
    if x.shape[-1] == 0 or x.shape[1] == 0:
        raise UnsupportedInputError(f"{name} {describe(x)} has no tokens or no channels; both must be at least 1.")


def _check_kernel(kernel: Tensor) -> None:
    if kernel.dim() not in (2, 3) or kernel.shape[-1] < 1 or not kernel.dtype.is_floating_point:
        raise UnsupportedInputError(
            f"a kernel is (D, K) or (B, D, K), real floating point with at least one tap; got {describe(kernel)}."
        )


def _check_fit(channels: int, batch: int | None, u: Tensor) -> None:
    if channels != u.shape[1] or batch not in (None, u.shape[0]):
        shown = "none" if batch is None else batch
        raise UnsupportedInputError(
            f"the kernel has {channels} channels and batch {shown}; u is {describe(u)}. "
            "A kernel is (D, K), or (B, D, K) for one per row."
        )


def _check_prepared(prepared: PreparedKernel, u: Tensor, mode: Mode, fft: FFTBackend) -> None:
    if prepared.mode != mode:
        raise UnsupportedInputError(
            f"the kernel was prepared for mode {prepared.mode!r}, not {mode!r}. Pass mode={prepared.mode!r}, or "
            "prepare it again."
        )
    if fft.name not in ("auto", prepared.backend.name):
        raise UnsupportedInputError(
            f"the kernel was prepared by backend {prepared.backend.name!r}, not {fft.name!r}. Prepare it again."
        )
    if prepared.length != u.shape[-1]:
        raise UnsupportedInputError(
            f"the kernel was prepared for signals of length {prepared.length}; got u {describe(u)}."
        )
    _check_fit(prepared.channels, prepared.batch, u)
    if u.dtype == torch.float64 and prepared.dtype != torch.float64:
        raise UnsupportedInputError(
            f"u is float64 and the kernel was prepared in {prepared.dtype}; prepare it from a float64 kernel."
        )
