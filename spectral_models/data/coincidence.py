"""A synthetic task of two modalities: the label is the token at the time of a tone."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spectral_models.errors import DataError


def coincidence_batch(
    batch: int,
    *,
    generator: torch.Generator,
    words: int = 16,
    kinds: int = 4,
    samples: int = 3200,
    sample_rate: float = 4000,
    snr: float = 20.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Texts and waveforms over the same span of time; the label is the token during which a tone sounds.

    Token n of a text corresponds to the n-th of ``words`` equal parts of its waveform. Each text contains all ``kinds``
    of tokens equally often, in random order. The tone fills one part; its frequency is a quarter of the sample rate,
    within 10 %. White noise of standard deviation 0.1 is added. Neither modality alone depends on the label, so no sum
    of a score of the text and a score of the waveform predicts it.

    snr: power of the sounding tone over the power of the noise at all frequencies, in decibels.
    Returns (input_ids (batch, words), input_values (batch, samples), labels (batch,)), on the generator's device.
    Raises DataError unless kinds divides words and words divides samples.
    """
    if batch < 1 or kinds < 2 or words < kinds or words % kinds or samples % words:
        raise DataError(
            f"a batch of {batch} with {words} words of {kinds} kinds over {samples} samples: at least 1, kinds (2 or "
            "more) that divide words, and words that divide samples."
        )
    device = generator.device
    ranks = torch.rand(batch, words, generator=generator, device=device).argsort(1)
    input_ids = ranks % kinds
    place = torch.randint(words, (batch, 1), generator=generator, device=device)
    labels = input_ids.gather(1, place)[:, 0]
    hertz, turn = torch.rand(2, batch, 1, generator=generator, device=device)
    time = torch.arange(samples, device=device)
    sounding = time // (samples // words) == place
    angle = 2 * math.pi * (sample_rate / 4 * (0.9 + 0.2 * hertz) * time / sample_rate + turn)
    tone = math.sqrt(2) * 10 ** (snr / 20) * sounding * torch.sin(angle)
    noise = torch.randn(batch, samples, generator=generator, device=device)
    return input_ids, 0.1 * (noise + tone), labels
