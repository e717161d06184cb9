"""Causal minimum-phase kernels with a given gain."""

from __future__ import annotations

import torch
from torch import Tensor

from spectral_core import FFTBackend, Spectrum

FLOOR = 1e-4
"""Smallest gain, -80 dB: the logarithm must exist, and deeper notches ring longer than a window."""
STOP_GAIN = 3e-3
"""Smallest gain of :func:`attainable`, -50 dB: deeper stop bands would need a finer cepstrum."""


def minimum_phase(gain: Tensor, taps: int, fft: FFTBackend, *, phase: Tensor | None = None) -> Tensor:
    """The first ``taps`` taps of the minimum-phase kernel with that gain: (..., F) -> (..., taps).

    gain: real, on F bins evenly spaced from 0 to 0.5 cycles a token, those of ``taps`` points or finer. Of all causal
    kernels with this gain, the minimum-phase kernel has the earliest energy, so truncating it changes the gain least.
    Accurate to 1e-2 for smooth gains; for steps see :func:`attainable`. Computed by the real cepstrum on 4 * taps
    points (log-gain interpolated linearly), folded onto t >= 0.

    phase: an extra phase in radians, (..., F'). It is added to the response, which is truncated to t >= 0 again, so
    both the phase and the gain are then approximate. Oppenheim & Schafer, Discrete-Time Signal Processing, section 13.
    """
    points = 4 * taps
    log_gain = _interpolated(gain.clamp(min=FLOOR).log(), points)
    cepstrum = fft.irfft(Spectrum(log_gain, torch.zeros_like(log_gain)), points)
    # Fold the cepstrum at negative times onto positive times; times 0 and points / 2 are their own mirror images.
    half = points // 2
    folded = torch.cat([cepstrum[..., :1], 2 * cepstrum[..., 1:half], cepstrum[..., half : half + 1]], -1)
    real, imag = fft.rfft(folded, points)
    if phase is not None:
        imag = imag + _interpolated(phase, points)
    magnitude = real.exp()
    kernel = fft.irfft(Spectrum(magnitude * torch.cos(imag), magnitude * torch.sin(imag)), points)
    return kernel[..., :taps]


def attainable(gain: Tensor, taps: int, fft: FFTBackend) -> Tensor:
    """A piecewise constant gain, smoothed so that ``taps`` causal taps can realise it: (..., F) -> (..., 2 * taps + 1).

    gain: real, on F = n // 2 + 1 bins of n <= taps points, n even; each bin covers the frequencies nearest to it. The
    result is on a finer grid from 0 to 0.5 cycles a token. A Kaiser window (beta 3) limits the transform of the
    smoothed gain A to lags below taps / 2, so A^2 + floor^2 is the power response of a kernel of ``taps`` taps (Fejer
    and Riesz), which :func:`minimum_phase` computes to 1e-3. The transform of the piecewise constant gain is that of
    the bins, repeated periodically, times sinc(t / n).

    Energy outside the kept bins, and gain in the worst kept bin, with 4 bins of 33 at gain 1 and the others at 0
    (``python benchmarks/sparsity.py``):

    |                                     | lowest four | a band of four | four anywhere |
    |-------------------------------------|-------------|----------------|---------------|
    | zero phase cut at t >= 0, 64 taps   | 0.312, 0.55 | 0.293, 0.56    | 0.425, 0.56   |
    | minimum phase of the steps, 64 taps | 0.008, 0.49 | 0.025, 0.46    | 0.209, 0.21   |
    | the same, 128 taps                  | 0.001, 0.67 | 0.002, 0.65    | 0.084, 0.24   |
    | attainable, 64 taps                 | 0.022, 0.81 | 0.038, 0.81    | 0.247, 0.62   |
    | attainable, 128 taps                | 0.010, 0.99 | 0.018, 0.99    | 0.074, 0.97   |
    | attainable, 256 taps                | 0.005, 0.99 | 0.009, 0.99    | 0.032, 0.99   |

    With as many taps as the window has points, no kernel can separate an isolated bin from its neighbours. With twice
    as many taps it can, with 7 % of the energy out of band if all four kept bins are isolated.
    """
    n, half = 2 * (gain.shape[-1] - 1), taps // 2
    lag = torch.arange(half, device=gain.device, dtype=gain.dtype)
    even = torch.where(lag > 0, 2.0, 1.0) * sinc(lag / n) * _kaiser(lag / half)
    inverse = fft.irfft(Spectrum(gain, torch.zeros_like(gain)), n)
    smooth = fft.rfft(inverse[..., lag.long() % n] * even, 4 * taps).real
    return torch.sqrt(smooth.square() + STOP_GAIN**2)


def sinc(x: Tensor) -> Tensor:
    """sin(pi x) / (pi x) for x >= 0, and 1 at 0. Unlike torch.sinc, it stays on the device under torch_xla."""
    angle = torch.pi * x.clamp(min=1e-9)
    return torch.sin(angle) / angle


def _kaiser(x: Tensor) -> Tensor:
    """The Kaiser window with beta 3 at x in [0, 1], from its centre to its end: I0(3 sqrt(1 - x^2)) / I0(3).

    Series I0(2 sqrt(y)) = sum_k y^k / k!^2, to float64 precision: torch_xla and exporters have no I0.
    """
    y = 2.25 * (1 - x.square())
    one = bessel = torch.ones_like(y)
    for k in range(15, 0, -1):
        bessel = torch.addcmul(one, bessel, y, value=1 / k**2)
    return bessel / bessel[..., :1]


def _interpolated(values: Tensor, points: int) -> Tensor:
    """Values on F bins, interpolated linearly to the bins of ``points`` points; F - 1 must divide points / 2."""
    finer, rest = divmod(points // 2, values.shape[-1] - 1)
    assert not rest
    part = torch.arange(finer, device=values.device, dtype=values.dtype) / finer
    between = torch.lerp(values[..., :-1, None], values[..., 1:, None], part)
    return torch.cat([between.flatten(-2), values[..., -1:]], -1)
