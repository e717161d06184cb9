"""What the spectral operators mean: direct sums in float64, without an FFT, plain enough to read as the definition.

Every tensor is taken to the CPU in float64. All functions are differentiable.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spectral_core.backends.base import Mode, Spectrum


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
    n = x.shape[-1] if n is None else n
    real, imag = oracle_rfft(x, n)
    if phase is not None:
        cosine, sine = _exact(phase).cos(), _exact(phase).sin()
        real, imag = real * cosine - imag * sine, real * sine + imag * cosine
    if gain is not None:
        real, imag = real * _exact(gain), imag * _exact(gain)
    return oracle_irfft(Spectrum(real, imag), n)


def oracle_rfft(x: Tensor, n: int) -> Spectrum:
    """X[f] = sum_t x[t] e^(-2 pi i f t / n), x cropped or zero-padded to n points."""
    points = torch.nn.functional.pad(_exact(x), (0, n - x.shape[-1]))
    cosine, sine = _matrices(n)
    return Spectrum(points @ cosine, -(points @ sine))


def oracle_irfft(spectrum: Spectrum, n: int) -> Tensor:
    """x[t] = 1/n sum_f w[f] (re[f] cos(2 pi f t / n) - im[f] sin(2 pi f t / n)).

    w is :func:`bin_weights`. The sine is zero at DC and Nyquist, so imaginary parts there do not contribute.
    """
    cosine, sine = _matrices(n)
    weights = bin_weights(n)
    return ((_exact(spectrum.real) * weights) @ cosine.T - (_exact(spectrum.imag) * weights) @ sine.T) / n


def bin_weights(n: int) -> Tensor:
    """How many bins of the full transform each bin of the real one stands for: 1 at DC and Nyquist, else 2."""
    weights = torch.full((n // 2 + 1,), 2.0, dtype=torch.float64)
    weights[0] = 1.0
    if n % 2 == 0:
        weights[-1] = 1.0
    return weights


def plain_convolve(u: Tensor, kernel: Tensor, mode: Mode) -> Tensor:
    """The convolution as anyone would write it with torch.fft, in u's own precision: the yardstick for accuracy.

    Half precision is transformed in float32 and cast back. A circular kernel must not be longer than the signal.
    """
    wide = torch.promote_types(u.dtype, torch.float32)
    signal, taps = u.detach().cpu().to(wide), kernel.detach().cpu().to(wide)
    length, count = signal.shape[-1], taps.shape[-1]
    n = length if mode == "circular" else length + count - 1
    start = count // 2 if mode == "centered" else 0
    y = torch.fft.irfft(torch.fft.rfft(signal, n=n) * torch.fft.rfft(taps, n=n), n=n)
    return y[..., start : start + length].to(u.dtype)


def _matrices(n: int) -> tuple[Tensor, Tensor]:
    """The cosine and sine of 2 pi t f / n, each (n, F). The product t f is reduced modulo n first, exactly."""
    turns = torch.arange(n)[:, None] * torch.arange(n // 2 + 1)[None, :] % n
    angle = turns.double() * (2 * math.pi / n)
    sine = angle.sin()
    sine[2 * turns == n] = 0.0  # sin(pi), which is not zero in floating point
    return angle.cos(), sine


def _exact(x: Tensor) -> Tensor:
    return x.to("cpu", torch.float64)
