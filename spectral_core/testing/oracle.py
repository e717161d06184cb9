"""The definitions of the spectral operators: direct sums in float64, without an FFT.

Every tensor is moved to the CPU in float64. All functions are differentiable.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spectral_core.backends.base import Mode, Spectrum
from spectral_kernels.modulation.reference import irfft, modulation, rfft


def oracle_convolve(
    u: Tensor,
    kernel: Tensor,
    *,
    mode: Mode = "causal",
    skip: Tensor | None = None,
    pre_gate: Tensor | None = None,
    post_gate: Tensor | None = None,
) -> Tensor:
    """y[t] = post[t] (sum_s kernel[s] v[source(t, s)] + skip v[t]) with v = pre u, in O(B D L K).

    source(t, s) is t - s (causal), (t - s) mod L (circular), t - s + K // 2 (centered); a linear mode reads zero
    outside of the signal. u: (B, D, L). kernel: (D, K) or (B, D, K). Returns (B, D, L) float64.
    """
    v = _exact(u) if pre_gate is None else _exact(u) * _exact(pre_gate)
    k = _exact(kernel)
    length, taps = v.shape[-1], k.shape[-1]
    source = torch.arange(length)[:, None] - torch.arange(taps)[None, :]
    if mode == "circular":
        source = source % length
    elif mode == "centered":
        source = source + taps // 2
    inside = (source >= 0) & (source < length)
    read = v[..., source.clamp(0, length - 1)]
    # torch.where rather than a product with the mask, so that NaN outside of the sum stays outside.
    y = torch.where(inside, k[..., None, :] * read, 0.0).sum(-1)
    if skip is not None:
        y = y + _exact(skip)[:, None] * v
    return y if post_gate is None else y * _exact(post_gate)


def oracle_modulate(x: Tensor, gain: Tensor | None = None, phase: Tensor | None = None, n: int | None = None) -> Tensor:
    """irfft(gain e^(i phase) rfft(x, n), n) by explicit cosine and sine matrices, in O(B D n^2).

    x: (B, D, L). gain, phase: broadcastable to (B, D, F), F = n // 2 + 1. Returns (B, D, n) float64.
    """
    gain, phase = (None if field is None else _exact(field) for field in (gain, phase))
    return modulation(_exact(x), gain, phase, x.shape[-1] if n is None else n)


def oracle_rfft(x: Tensor, n: int) -> Spectrum:
    """X[f] = sum_t x[t] e^(-2 pi i f t / n), x cropped or zero-padded to n points."""
    return Spectrum(*rfft(_exact(x), n))


def oracle_irfft(spectrum: Spectrum, n: int) -> Tensor:
    """The inverse of :func:`oracle_rfft`; imaginary parts at DC and Nyquist do not contribute."""
    return irfft(_exact(spectrum.real), _exact(spectrum.imag), n)


def plain_convolve(u: Tensor, kernel: Tensor, mode: Mode) -> Tensor:
    """The convolution by torch.fft, in u's own precision: what a backend's accuracy is compared with.

    Half precision is transformed in float32 and cast back. A circular kernel must not be longer than the signal.
    """
    wide = torch.promote_types(u.dtype, torch.float32)
    signal, taps = u.detach().cpu().to(wide), kernel.detach().cpu().to(wide)
    length, count = signal.shape[-1], taps.shape[-1]
    n = length if mode == "circular" else length + count - 1
    start = count // 2 if mode == "centered" else 0
    y = torch.fft.irfft(torch.fft.rfft(signal, n=n) * torch.fft.rfft(taps, n=n), n=n)
    return y[..., start : start + length].to(u.dtype)


def _exact(x: Tensor) -> Tensor:
    return x.to("cpu", torch.float64)
