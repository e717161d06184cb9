"""Writes mel_reference.npz: what librosa makes of half a second of sound. Needs librosa, which the tests do not.

pip install librosa==0.11.0 && python tests/layers/data/mel_reference.py
"""

from __future__ import annotations

from pathlib import Path

import librosa
import numpy as np

SETTINGS = {
    "slaney": {"sr": 16_000, "n_fft": 400, "hop_length": 160, "n_mels": 80, "htk": False},
    "htk": {"sr": 16_000, "n_fft": 1024, "hop_length": 256, "n_mels": 64, "htk": True, "fmin": 50.0, "fmax": 7_600.0},
    "music": {"sr": 22_050, "n_fft": 2048, "hop_length": 512, "n_mels": 128, "htk": False},
}

rng = np.random.default_rng(0)
seconds = np.arange(8_000) / 16_000
chirp = np.sin(2 * np.pi * (200 + 3_000 * seconds) * seconds) * np.exp(-3 * seconds)
waveform = (0.5 * chirp + 0.01 * rng.standard_normal(len(seconds))).astype(np.float32)
mels = {name: librosa.feature.melspectrogram(y=waveform, **options) for name, options in SETTINGS.items()}
np.savez_compressed(Path(__file__).with_suffix(".npz"), waveform=waveform, **mels)
