"""Mel spectrogram of audio, one token per frame or per band of a frame."""

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
    """htk: 2595 log10(1 + f / 700). slaney: 3 f / 200 up to 1 kHz, then 27 mel per factor of 6.4 in frequency."""
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
    """Triangular filters of unit area in hertz, evenly spaced in mel over the band: (n_mels, F) in float64.

    Each rises from the centre of the filter below to its own centre, and falls to the centre of the filter above.
    Slaney, "Auditory toolbox", 1998.
    """
    with torch.device("cpu"):  # values are needed, and the model may be built on the meta device
        low, high = hertz_to_mel(torch.tensor(band, dtype=torch.float64), scale).tolist()
        edges = mel_to_hertz(torch.linspace(low, high, n_mels + 2, dtype=torch.float64), scale)
        bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * sample_rate / n_fft
    lower, centre, upper = (edges[i : i + n_mels, None] for i in range(3))
    triangles = torch.minimum((bins - lower) / (centre - lower), (upper - bins) / (upper - centre)).clamp(min=0)
    return triangles * 2.0 / (upper - lower)


class Bands(Projection):
    """y_k = W_k x_k + b for each of ``bands`` equal parts x_k of x, with W_k the corresponding columns of W."""

    def __init__(self, in_features: int, out_features: int, *, bands: int) -> None:
        super().__init__(in_features, out_features)
        self.bands = bands

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, mels) -> (B, T * bands, D), the bands of a frame next to each other."""
        parts, weights = x.unflatten(2, (self.bands, -1)), self.weight.unflatten(1, (self.bands, -1))
        return (torch.einsum("btkm,dkm->btkd", parts.to(weights.dtype), weights) + self.bias).flatten(1, 2)


class MelConfig(FrontEndConfig):
    """Mel spectrogram of audio, one token per frame or per band of a frame."""

    modality: ClassVar[Modality] = "audio"

    type: Literal["mel"] = "mel"
    sample_rate: Scale = 16_000
    """Sample rate of the input, in hertz."""
    n_fft: int = Field(default=400, multiple_of=2, gt=0, le=1 << 15)
    """Samples per frame."""
    hop_length: Length = 160
    """Samples between the starts of successive frames."""
    n_mels: int = Field(default=80, gt=0, le=512)
    """Number of mel filters."""
    f_min: Weight = 0.0
    """Lower edge of the lowest filter, in hertz."""
    f_max: Scale | None = None
    """Upper edge of the highest filter, in hertz; null takes half the sample rate."""
    scale: MelScale = "slaney"
    """Spacing of filters: linear below 1 kHz and logarithmic above (slaney), or 2595 log10(1 + f / 700) (htk)."""
    bands: Width = 1
    """Tokens per frame: the filters are divided into this many bands of neighbours, on a grid of frames and bands."""

    @property
    def band(self) -> tuple[float, float]:
        """Lower and upper edge of the filters, in hertz."""
        return self.f_min, self.sample_rate / 2 if self.f_max is None else self.f_max

    @model_validator(mode="after")
    def _fits(self) -> MelConfig:
        low, high = self.band
        if not low < high <= self.sample_rate / 2:
            raise ValueError(
                f"f_min must be below f_max, and f_max at most half the sample rate of {self.sample_rate:g} Hz; "
                f"got {low:g} to {high:g} Hz"
            )
        if self.n_mels % self.bands:
            raise ValueError(f"bands must divide n_mels = {self.n_mels}; got {self.bands}")
        return self


class Mel(FrontEnd[MelConfig]):
    """x[t] = W f(M |STFT[t]|^2) + b, f(p) = (log10 max(p, 1e-10) + 4) / 4: about -1.5 for silence, 1 for loud sound.

    Frame t consists of n_fft samples around sample t * hop_length, Hann-windowed, with zeros outside the waveform.
    There are 1 + T // hop_length frames; a frame depends on n_fft / 2 samples after its centre. M: triangular filters
    (:func:`mel_filters`). The scaling of the logarithm is fixed, not relative to the loudest frame, so features do not
    depend on other frames. O(T / hop_length * n_fft log n_fft) by the model's FFT backend, in float32 at least.

    With several bands, x[t, k] = W_k f(M |STFT[t]|^2)_k + b for the k-th part of the mels, with W_k the corresponding
    columns of W: a grid of frames and bands, row by row.

    Scaling: Radford et al., "Robust speech recognition via large-scale weak supervision", 2022.
    """

    def setup(self, config: MelConfig, context: LayerContext) -> None:
        self.bands, self.n_fft, self.hop_length, self.fft = config.bands, config.n_fft, config.hop_length, context.fft
        # (mels, F). Not a buffer: half precision would round it, and building on the meta device would lose it.
        self.filters = mel_filters(config.sample_rate, config.n_fft, config.n_mels, config.band, config.scale)
        silent = (self.filters.amax(1) == 0).nonzero().flatten().tolist()
        if silent:
            raise ConfigError(
                f"{len(silent)} of {config.n_mels} mel filters (the first: {silent[0]}) lie between the bins of n_fft "
                f"{config.n_fft} and would be zero. Use fewer n_mels or a larger n_fft."
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
        """The mel power spectrogram: (B, T) -> (B, mels, 1 + T // hop_length)."""
        x = waveform.to(transform_dtype(waveform.dtype))
        frames = F.pad(x, (self.n_fft // 2, self.n_fft // 2)).unfold(-1, self.n_fft, self.hop_length)
        window = torch.hann_window(self.n_fft, dtype=x.dtype, device=x.device)
        # Outside autocast, which would round powers to half precision.
        with torch.autocast(x.device.type, enabled=False):
            real, imag = self.fft.rfft(frames * window, self.n_fft)
            return self.filters.to(x) @ (real.square() + imag.square()).transpose(1, 2)

    def example(self, batch: int) -> Tensor:
        return 0.1 * torch.randn(batch, 9 * self.hop_length + 1)
