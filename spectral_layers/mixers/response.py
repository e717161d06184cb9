"""The frequency response that a mixer realises, compared with the one that its gates and sparsity return."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spectral_core import FFTBackend, Spectrum
from spectral_layers.gates.base import Modulation, SpectralView
from spectral_layers.minimum_phase import sinc
from spectral_layers.report import Report
from spectral_layers.sparsity.base import batch_mean, kept_energy

FINER = 4
"""Points of a response per bin, enough to determine the energy of a kernel twice as long as the window."""


@dataclass(frozen=True)
class Response:
    """Gains per sample, block and head, (B, blocks, H, ...): root mean squares over the head's channels.

    wished: the gains that gates and sparsity return, (..., F), at ``bins`` (F,) in cycles per token. realised:
    (..., F'), at ``frequency`` (F',): equal in an encoder; in a decoder the response of the block's causal kernel.
    """

    bins: Tensor
    wished: Tensor
    frequency: Tensor
    realised: Tensor


def gain_of(kernel: Tensor, bins: int, fft: FFTBackend) -> Tensor:
    """|FFT| of (..., K) taps, K <= 4 (bins - 1): (..., FINER * (bins - 1) + 1); every FINER-th point is a bin."""
    real, imag = fft.rfft(kernel, 2 * FINER * (bins - 1))
    return torch.sqrt(real.square() + imag.square())


def over_channels(gain: Tensor, blocks: int) -> Tensor:
    """Root mean square of (B * blocks, H, C, F) gains over the channels: (B, blocks, H, F)."""
    return gain.square().mean(2).sqrt().unflatten(0, (-1, blocks))


def realised(kernel: Tensor, gated: Modulation, kept: Modulation, view: SpectralView, fft: FFTBackend) -> Modulation:
    """A sparsity's modulation with metrics of the realised response.

    kernel: (B, H, 1 or C, K), of both modulations. view: the sparsity's input, after the gates. Metrics, averaged:
    kept_share, the share of bins whose gain is more than half of the gates'; kept_energy, the share of the view's
    energy that passes; out_of_band, the share of the kernel's energy that is nearer to a dropped than to a kept bin.
    """
    with torch.no_grad():
        bins = view.frequency.shape[-1]
        response = gain_of(kernel, bins, fft)
        here = response[..., ::FINER]
        through = here / (torch.ones_like(here) if gated.gain is None else gated.gain).clamp(min=1e-6)
        requested = torch.ones_like(here) if kept.gain is None else kept.gain.expand(*here.shape[:-1], bins)
        power = _around_bins(response.square(), fft)
        metrics = {
            "kept_share": batch_mean((through > 0.5).to(here.dtype)),
            "kept_energy": kept_energy(through, view),
            "out_of_band": batch_mean((power * (1 - requested)).sum(-1) / power.sum(-1)),
        }
    return kept + Report(metrics=metrics)


def _around_bins(power: Tensor, fft: FFTBackend) -> Tensor:
    """The integral of |H|^2 over the frequencies nearest to each bin and its negative: (..., F') -> (..., F).

    Exact: convolution of |H|^2 with a box multiplies its transform, the kernel's autocorrelation, by a sinc.
    """
    points = 2 * (power.shape[-1] - 1)
    index = torch.arange(points, device=power.device, dtype=power.dtype)
    box = sinc(torch.minimum(index, points - index) * (FINER / points))
    cells = fft.rfft(fft.irfft(Spectrum(power, torch.zeros_like(power)), points) * box, points).real[..., ::FINER]
    bins = torch.arange(cells.shape[-1], device=power.device)
    return cells * torch.where((bins > 0) & (bins < bins[-1]), 2.0, 1.0)
