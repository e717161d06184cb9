"""The definition of modulation: explicit sums over samples and bins, in the precision of the input."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def modulation(x: Tensor, gain: Tensor | None, phase: Tensor | None, n: int) -> Tensor:
    """irfft(gain e^(i phase) rfft(x, n), n). x: (B, D, L). gain, phase broadcast to (B, D, n // 2 + 1).

    O(B D n^2). Differentiable.
    """
    real, imag = rfft(x, n)
    if phase is not None:
        real, imag = real * phase.cos() - imag * phase.sin(), real * phase.sin() + imag * phase.cos()
    if gain is not None:
        real, imag = real * gain, imag * gain
    return irfft(real, imag, n)


def rfft(x: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Real and imaginary part of X[f] = sum_t x[t] e^(-2 pi i f t / n), x cropped or zero-padded to n samples."""
    x = torch.nn.functional.pad(x, (0, n - x.shape[-1]))
    cosine, sine = _waves(n, x.dtype)
    return x @ cosine, -(x @ sine)


def irfft(real: Tensor, imag: Tensor, n: int) -> Tensor:
    """x[t] = 1/n sum_f w[f] (re[f] cos(2 pi f t / n) - im[f] sin(2 pi f t / n)), w by :func:`bin_weights`.

    The sine is zero at DC and Nyquist, so imaginary parts there do not contribute.
    """
    cosine, sine = _waves(n, real.dtype)
    weights = bin_weights(n).to(real.dtype)
    return ((real * weights) @ cosine.T - (imag * weights) @ sine.T) / n


def bin_weights(n: int) -> Tensor:
    """How many bins of the full transform each bin of the real one stands for: 1 at DC and Nyquist, else 2."""
    weights = torch.full((n // 2 + 1,), 2.0, dtype=torch.float64)
    weights[0] = 1.0
    if n % 2 == 0:
        weights[-1] = 1.0
    return weights


def _waves(n: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The cosine and sine of 2 pi t f / n, each (n, F). The product t f is reduced modulo n first, exactly."""
    turns = torch.arange(n)[:, None] * torch.arange(n // 2 + 1) % n
    angle = turns.double() * (2 * math.pi / n)
    sine = angle.sin()
    sine[2 * turns == n] = 0.0  # sin(pi), which is not zero in floating point
    return angle.cos().to(dtype), sine.to(dtype)
