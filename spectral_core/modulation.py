"""Modulation of a spectrum by real fields: the second of the two spectral operators."""

from __future__ import annotations

import torch
from torch import Tensor

from spectral_core.axes import describe
from spectral_core.backends.base import FFTBackend, Request
from spectral_core.backends.selection import fft_backend
from spectral_core.errors import UnsupportedInputError


def modulate(
    x: Tensor,
    gain: Tensor | None = None,
    phase: Tensor | None = None,
    *,
    n: int | None = None,
    backend: str | FFTBackend = "auto",
) -> Tensor:
    """Scale and turn the bins of a signal: irfft(gain * e^(i phase) * rfft(x, n), n).

    x: (B, D, L) real. gain, phase (radians): real, broadcastable to (B, D, F) with F = n // 2 + 1; either may be
    None. n: points of the transform, by default L; x is cropped or zero-padded to it. Returns (B, D, n) in x's dtype.

    Not causal: every output depends on every input. The imaginary parts at DC and Nyquist are zeroed after the
    product. O(B D n log n). Raises UnsupportedInputError for integer or complex tensors and fields that do not fit.
    """
    fft = fft_backend(backend) if isinstance(backend, str) else backend
    if x.dim() != 3 or not x.dtype.is_floating_point or 0 in x.shape[1:]:
        raise UnsupportedInputError(
            f"x must be (B, D, L), real floating point, with at least one channel and token; got {describe(x)}."
        )
    n = x.shape[-1] if n is None else n
    if n < 1:
        raise UnsupportedInputError(f"a transform has at least one point; got n = {n}.")
    full = (*x.shape[:2], n // 2 + 1)
    for name, field in (("gain", gain), ("phase", phase)):
        if field is None:
            continue
        if not field.dtype.is_floating_point:
            raise UnsupportedInputError(f"{name} must be real floating point; got {describe(field)}.")
        try:
            fits = torch.broadcast_shapes(field.shape, full) == torch.Size(full)
        except RuntimeError:
            fits = False
        if not fits:
            raise UnsupportedInputError(f"{name} {describe(field)} does not broadcast to (B, D, F) = {full}.")
    grad = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, gain, phase))
    request = Request.of("modulation", x, n, mode="circular", grad=grad)
    chosen = fft.select(request)
    if x.shape[0] == 0:
        return x.new_empty(0, x.shape[1], n)
    # Fields of half precision (a gate under autocast) are used in the precision of the transform.
    gain, phase = (None if field is None else field.to(request.dtype) for field in (gain, phase))
    return chosen.modulation(x, gain, phase, n)
