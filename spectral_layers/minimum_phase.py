"""From a gain to the causal kernel that has it."""

from __future__ import annotations

import torch
from torch import Tensor

from spectral_core import FFTBackend, Spectrum

FLOOR = 1e-4
"""Gains below -80 dB are raised to it: their logarithm must exist, and deeper notches ring longer than a window."""
STOPPED = 3e-3
"""What stepped gains fall to, -50 dB: deeper zeros of the response need a finer cepstrum than they are worth."""


def minimum_phase(gain: Tensor, taps: int, fft: FFTBackend, *, phase: Tensor | None = None) -> Tensor:
    """The first ``taps`` taps of the minimum-phase kernel with that gain: (..., F) -> (..., taps).

    gain: real, on F bins evenly spaced from 0 to 0.5 cycles a token, those of ``taps`` points or finer. Of all causal
    kernels with this gain it is the one whose energy comes earliest, so cutting it keeps the gain best; cutting the
    zero-phase kernel at t >= 0 does not. Right to 1e-2 for smooth gains; for steps see :func:`attainable`.
    Real cepstrum on 4 * taps points (log-gain interpolated linearly), folded onto t >= 0.

    phase: an extra phase, (..., F'). Turned in after the fact and cut to t >= 0 again, so it and then the gain hold
    only approximately. Oppenheim & Schafer, Discrete-Time Signal Processing, section 13.
    """
    points = 4 * taps
    log_gain = _refined(gain.clamp(min=FLOOR).log(), points)
    cepstrum = fft.irfft(Spectrum(log_gain, torch.zeros_like(log_gain)), points)
    # Fold: what lies at negative times moves to its mirror image; DC and the half-way point stay.
    half = points // 2
    folded = torch.cat([cepstrum[..., :1], 2 * cepstrum[..., 1:half], cepstrum[..., half : half + 1]], -1)
    real, imag = fft.rfft(folded, points)
    if phase is not None:
        imag = imag + _refined(phase, points)
    size = real.exp()
    kernel = fft.irfft(Spectrum(size * torch.cos(imag), size * torch.sin(imag)), points)
    return kernel[..., :taps]


def attainable(gain: Tensor, taps: int, fft: FFTBackend) -> Tensor:
    """A gain with steps, as near as ``taps`` causal taps can have it: (..., F) -> (..., 2 * taps + 1), from 0 to 0.5.

    gain: real, on F = n // 2 + 1 bins of n <= taps points, n even; each bin stands for the frequencies nearest to it.
    Smoothing over neighbouring bins leaves a gain A whose transform ends before taps / 2, so A^2 + floor^2 is that of
    a kernel of ``taps`` taps (Fejer and Riesz), and :func:`minimum_phase` finds it, to 1e-3. Kaiser window, beta 3: the
    transform of a row of boxes is that of the bins, repeated, under sinc(t / n).

    Energy outside the kept bins, and gain in the worst kept bin, with 4 bins of 33 at gain 1 and the others at 0
    (``python benchmarks/sparsity.py``):

    |                                     | lowest four | a band of four | four anywhere |
    |-------------------------------------|-------------|----------------|---------------|
    | zero phase cut at t >= 0, 64 taps   | 0.312, 0.55 | 0.293, 0.56    | 0.425, 0.56   |
    | minimum phase of the steps, 64 taps | 0.008, 0.49 | 0.025, 0.46    | 0.209, 0.21   |
    | the same, 128 taps                  | 0.001, 0.67 | 0.002, 0.65    | 0.084, 0.24   |
    | this, 64 taps                       | 0.022, 0.81 | 0.038, 0.81    | 0.247, 0.62   |
    | this, 128 taps                      | 0.010, 0.99 | 0.018, 0.99    | 0.074, 0.97   |
    | this, 256 taps                      | 0.005, 0.99 | 0.009, 0.99    | 0.032, 0.99   |

    With no more taps than the window has points, lone bins cannot be told from their neighbours by any kernel; with
    twice as many they can, and 7 % is the price of each standing alone.
    """
    n, half = 2 * (gain.shape[-1] - 1), taps // 2
    lag = torch.arange(half, device=gain.device, dtype=gain.dtype)
    even = torch.where(lag > 0, 2.0, 1.0) * sinc(lag / n) * _kaiser(lag / half)
    inverse = fft.irfft(Spectrum(gain, torch.zeros_like(gain)), n)
    smooth = fft.rfft(inverse[..., lag.long() % n] * even, 4 * taps).real
    return torch.sqrt(smooth.square() + STOPPED**2)


def sinc(x: Tensor) -> Tensor:
    """sin(pi x) / (pi x) for x >= 0, and 1 at 0. torch_xla sends torch.sinc to the host."""
    angle = torch.pi * x.clamp(min=1e-9)
    return torch.sin(angle) / angle


def _kaiser(place: Tensor) -> Tensor:
    """Kaiser's window, beta 3, from its middle (place 0) to its end (1): I0(3 sqrt(1 - place^2)) / I0(3).

    I0(2 sqrt(y)) = sum_k y^k / k!^2, here to below float64's rounding: torch_xla and exporters have no I0.
    """
    y = 2.25 * (1 - place.square())
    one = bessel = torch.ones_like(y)
    for k in range(15, 0, -1):
        bessel = torch.addcmul(one, bessel, y, value=1 / k**2)
    return bessel / bessel[..., :1]


def _refined(values: Tensor, points: int) -> Tensor:
    """Values on F bins from 0 to 0.5, interpolated linearly on those of ``points`` points; F - 1 divides their half."""
    finer, rest = divmod(points // 2, values.shape[-1] - 1)
    assert not rest
    part = torch.arange(finer, device=values.device, dtype=values.dtype) / finer
    between = torch.lerp(values[..., :-1, None], values[..., 1:, None], part)
    return torch.cat([between.flatten(-2), values[..., -1:]], -1)
