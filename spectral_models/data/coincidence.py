"""Which word is said while a tone sounds: a synthetic task that only two modalities side by side in time decide."""

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
    """Texts and waveforms over the same span of time: the label is the token in whose share of it a tone is heard.

    Token n of a text stands for the n-th of ``words`` equal parts of its waveform; all ``kinds`` of tokens come equally
    often in each text, in random order. The tone, within a tenth of a quarter of the sample rate, fills one part; white
    noise of size 0.1 covers everything. Texts and waveforms are, each by itself, as likely under one label as under any
    other, and so is any sum of a score of the one and a score of the other: a label lies in where the tone stands
    *and* in the whole order of the text.

    snr: in decibels, the power of the tone while it lasts over that of the noise in all frequencies.
    Returns (input_ids (batch, words), input_values (batch, samples), labels (batch,)), on the generator's device.
    Raises DataError when the parts do not come out even.
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
