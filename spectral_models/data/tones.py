"""A synthetic task of two tones in noise: the label is their order."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spectral_models.errors import DataError


def tones_batch(
    batch: int, *, snr: float, generator: torch.Generator, samples: int = 1600, sample_rate: float = 4000
) -> tuple[Tensor, Tensor]:
    """Waveforms with a low and a high tone, one in each half: label 0 if the low one comes first, else 1.

    Each tone lasts a quarter of the waveform, at a random place in its half, with a random phase. Its frequency is an
    eighth or a third of the sample rate, within 10 %. White noise of standard deviation 0.1 is added. Averages over
    time, such as a mean mel spectrogram, are equal for both labels.

    snr: power of a sounding tone over the power of the noise at all frequencies, in decibels.
    Returns (input_values (batch, samples), labels (batch,)), on the generator's device.
    """
    if batch < 1 or samples < 16:
        raise DataError(f"tones for a batch of {batch} with {samples} samples: at least 1 with 16.")

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=generator.device)

    labels = torch.randint(2, (batch,), generator=generator, device=generator.device)
    high = torch.stack([labels, 1 - labels], 1)
    hertz = torch.where(high == 1, sample_rate / 3, sample_rate / 8) * (0.9 + 0.2 * uniform(batch, 2))
    half, long = samples // 2, samples // 4
    begin = (uniform(batch, 2) * (half - long)).floor() + torch.tensor([0, half], device=generator.device)
    time = torch.arange(samples, device=generator.device)
    sounding = (time >= begin[..., None]) & (time < begin[..., None] + long)
    angle = 2 * math.pi * (hertz[..., None] * time / sample_rate + uniform(batch, 2, 1))
    tones = (math.sqrt(2) * 10 ** (snr / 20) * sounding * torch.sin(angle)).sum(1)
    noise = torch.randn(batch, samples, generator=generator, device=generator.device)
    return 0.1 * (noise + tones), labels
