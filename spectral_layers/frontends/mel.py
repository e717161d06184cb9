"""Audio: a mel spectrogram, one token a frame, or one for each band of a frame."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from spectral_core import ConfigError
from spectral_core.axes import describe
from spectral_core.backends.base import transform_dtype
from spectral_core.config import Length, Scale, Weight, Width
from spectral_core.errors import UnsupportedInputError
from spectral_layers.context import LayerContext
from spectral_layers.frontends.base import FrontEnd, FrontEndConfig, FrontEndOutput, Modality
from spectral_layers.projection import Projection
from spectral_layers.rows import Rows

MelScale = Literal["slaney", "htk"]


def hertz_to_mel(hertz: Tensor, scale: MelScale) -> Tensor:
    """htk: 2595 log10(1 + f / 700). slaney: 3 f / 200 up to 1 kHz, from there 27 more for each factor of 6.4."""
    if scale == "htk":
        return 2595.0 * torch.log10(1.0 + hertz / 700.0)
    logarithmic = 15.0 + 27.0 * torch.log(hertz.clamp(min=1000.0) / 1000.0) / math.log(6.4)
    return torch.where(hertz < 1000.0, 3.0 * hertz / 200.0, logarithmic)


def mel_to_hertz(mel: Tensor, scale: MelScale) -> Tensor:
    """Inverse of :func:`hertz_to_mel`."""
    if scale == "htk":
        return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    return torch.where(mel < 15.0, 200.0 * mel / 3.0, 1000.0 * 6.4 ** ((mel - 15.0) / 27.0))


def mel_filters(sample_rate: float, n_fft: int, n_mels: int, band: tuple[float, float], scale: MelScale) -> Tensor:
    """Triangles of unit area over frequency in hertz, evenly spaced in mel over the band: (n_mels, F) in float64.

    Each rises from the centre of the one below to its own and falls to that of the one above, times 2 / width.
    Slaney, "Auditory toolbox", 1998.
    """
    with torch.device("cpu"):  # where they are computed, whatever the model is built on
        low, high = hertz_to_mel(torch.tensor(band, dtype=torch.float64), scale).tolist()
        edges = mel_to_hertz(torch.linspace(low, high, n_mels + 2, dtype=torch.float64), scale)
        bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * sample_rate / n_fft
    lower, centre, upper = (edges[i : i + n_mels, None] for i in range(3))
    triangles = torch.minimum((bins - lower) / (centre - lower), (upper - bins) / (upper - centre)).clamp(min=0)
    return triangles * 2.0 / (upper - lower)


class Bands(Projection):
    """y_k = W_k x_k + b for each k-th of ``bands`` parts of x, W_k the columns of W that belong to it."""

    def __init__(self, in_features: int, out_features: int, *, bands: int) -> None:
        super().__init__(in_features, out_features)
        self.bands = bands

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, mels) -> (B, T * bands, D), band by band."""
        x = x.to(self.weight.dtype)
        if self.bands == 1:
            return super().forward(x)
        parts, weights = x.unflatten(2, (self.bands, -1)), self.weight.unflatten(1, (self.bands, -1))
        return (torch.einsum("btkm,dkm->btkd", parts, weights) + self.bias).flatten(1, 2)


class MelConfig(FrontEndConfig):
    """Audio as a mel spectrogram, one token a frame, or one for each band of a frame."""

    modality: ClassVar[Modality] = "audio"

    type: Literal["mel"] = "mel"
    sample_rate: Scale = 16_000
    """Samples a second of the input."""
    n_fft: int = Field(default=400, multiple_of=2, gt=0, le=1 << 15)
    """Samples of a frame."""
    hop_length: Length = 160
    """Samples from one frame to the next."""
    n_mels: int = Field(default=80, gt=0, le=512)
    """Filters."""
    f_min: Weight = 0.0
    """Where the lowest filter begins, in hertz."""
    f_max: Scale | None = None
    """Where the highest filter ends, in hertz; null takes half the sample rate."""
    scale: MelScale = "slaney"
    """How filters are spaced: linear below 1 kHz and logarithmic above (slaney), or by one formula (htk)."""
    bands: Width = 1
    """Tokens of a frame: the filters in so many parts of neighbours, on a grid of frames and bands."""

    @property
    def band(self) -> tuple[float, float]:
        """From where to where the filters reach, in hertz."""
        return self.f_min, self.sample_rate / 2 if self.f_max is None else self.f_max

    @model_validator(mode="after")
    def _fits(self) -> MelConfig:
        low, high = self.band
        if not low < high <= self.sample_rate / 2:
            raise ValueError(
                f"filters reach from f_min up to f_max, at most half the sample rate of {self.sample_rate:g} Hz; "
                f"got {low:g} to {high:g} Hz"
            )
        if self.n_mels % self.bands:
            raise ValueError(f"bands are equal parts of the n_mels = {self.n_mels} filters; {self.bands} leave a rest")
        return self


class Mel(FrontEnd[MelConfig]):
    """x[t] = W f(M |STFT[t]|^2) + b, f(p) = (log10 max(p, 1e-10) + 4) / 4: about -1.5 for silence, 1 for loud sound.

    Frame t is Hann-windowed: n_fft samples around sample t * hop_length, with zeros outside the waveform. There are
    1 + T // hop_length frames, and each sees n_fft / 2 samples beyond its centre. M: triangular filters
    (:func:`mel_filters`). The logarithm's scaling is fixed, never taken from the loudest frame: a row's features are
    its own. O(T / hop_length * n_fft log n_fft) by the model's FFT backend, in float32 at least.

    With several bands, x[t, k] = W_k f(M |STFT[t]|^2)_k + b for each k-th part of the mels, W_k the columns of W that
    belong to it: a grid of frames and bands, row by row.

    Scaling: Radford et al., "Robust speech recognition via large-scale weak supervision", 2022.
    """

    def setup(self, config: MelConfig, context: LayerContext) -> None:
        self.bands, self.n_fft, self.hop_length, self.fft = config.bands, config.n_fft, config.hop_length, context.fft
        # (mels, F), no buffer: a model in half precision would round it, one begun on meta lose it
        self.filters = mel_filters(config.sample_rate, config.n_fft, config.n_mels, config.band, config.scale)
        silent = (self.filters.amax(1) == 0).nonzero().flatten().tolist()
        if silent:
            raise ConfigError(
                f"{len(silent)} of {config.n_mels} mel filters (the first: {silent[0]}) lie between the bins of n_fft "
                f"{config.n_fft} and would hear nothing. Use fewer n_mels or a larger n_fft."
            )
        self.proj = Bands(config.n_mels, context.hidden_dim, bands=config.bands)
        nn.init.normal_(self.proj.weight, std=(config.n_mels // config.bands) ** -0.5)
        assert self.proj.bias is not None
        nn.init.zeros_(self.proj.bias)

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> FrontEndOutput:
        """inputs: (B, T) samples in floating point, about -1 to 1, at the sample rate of the filters."""
        if inputs.dim() != 2 or inputs.shape[1] < 1 or not inputs.is_floating_point():
            raise UnsupportedInputError(
                f"audio is (B, T) floats with at least one sample, one channel; got {describe(inputs)}. "
                "Average channels, and divide integer samples by their largest value."
            )
        self.check_lengths(inputs, lengths)
        rows = None
        if lengths is not None:
            inputs = torch.where(Rows(lengths).mask(inputs.shape[1]), inputs, 0.0)
            rows = Rows(torch.where(lengths > 0, 1 + lengths // self.hop_length, 0) * self.bands)
        level = (torch.log10(self.spectrogram(inputs).clamp(min=1e-10)) + 4.0) / 4.0
        grid = None if self.bands == 1 else (level.shape[2], self.bands)
        return FrontEndOutput(self.proj(level.transpose(1, 2)), rows, grid)

    def spectrogram(self, waveform: Tensor) -> Tensor:
        """The power in each mel of each frame: (B, T) -> (B, mels, 1 + T // hop_length)."""
        x = waveform.to(transform_dtype(waveform.dtype))
        frames = F.pad(x, (self.n_fft // 2, self.n_fft // 2)).unfold(-1, self.n_fft, self.hop_length)
        window = torch.hann_window(self.n_fft, dtype=x.dtype, device=x.device)
        # Outside autocast, which would round powers to half precision.
        with torch.autocast(x.device.type, enabled=False):
            real, imag = self.fft.rfft(frames * window, self.n_fft)
            return self.filters.to(x) @ (real.square() + imag.square()).transpose(1, 2)

    def example(self, batch: int) -> Tensor:
        return 0.1 * torch.randn(batch, 9 * self.hop_length + 1)
