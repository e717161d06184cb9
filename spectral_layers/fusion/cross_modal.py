"""Fusion of any of several named modalities on one of them, in the frequency domain."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Literal, cast

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from spectral_core import ConfigError, Spectrum
from spectral_core.config import Scale, Width
from spectral_layers.bands import FLOOR, across_bands, hats, log_energies
from spectral_layers.context import LayerContext
from spectral_layers.entry import Entered, entry
from spectral_layers.fusion.base import Fusion, FusionConfig, FusionOutput, Stream, lengths_of
from spectral_layers.fusion.resampling import resampled
from spectral_layers.initialisation import init_output_projections
from spectral_layers.state import State


class CrossModalConfig(FusionConfig):
    """Fuses any of several named modalities on one of them, per frequency band."""

    type: Literal["cross_modal"] = "cross_modal"
    modalities: tuple[str, ...] | None = Field(default=None, min_length=2, max_length=16)
    """Names of the streams, two or more; each has its own parameters, and any may be absent from a call. Null takes the
    model's names."""
    bands: Width = Field(default=8, ge=2)
    """Bands from 0 to half a cycle per token of the target."""
    head_dim: Width = 32
    """Channels per head."""
    temperature: Scale = 1.0
    """Initial temperature of gates and importance."""

    @field_validator("modalities")
    @classmethod
    def _distinct(cls, modalities: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if modalities is not None and ("" in modalities or len(set(modalities)) < len(modalities)):
            raise ValueError(f"modalities must have distinct names that are not empty; got {modalities}")
        return modalities


class CrossModal(Fusion[CrossModalConfig]):
    """y = x_a + W_o irfft(G sum_m w_m g_m A_m U_m): a weighted sum of spectra on the bins of the target a.

    Gains and phases are per head and per frequency band, interpolated to bins; m runs over the modalities that are
    present, including a, and l_m are the log-powers of m's bands.

    - U_m is the spectrum of W_m x_m over each row's own length, truncated or zero-padded to the target's bins
      (:func:`resampled`): streams are aligned in relative time, whatever their rates.
    - g_m = 2 sigmoid((c_m + C_m l_m) / T): a gate per band. T is the temperature.
    - w_m = softmax over m of (q_m . l_m) / T: importance of m in this row, from its spectral power.
    - A_m = ((1 - s) + s k) e^(i r): phase alignment, A_a = 1. k = <U_a, U_m> / (|U_a| |U_m|), over the head's channels,
      is each bin's complex coherence: its angle is the phase by which m lags behind a, so delays are compensated, and
      its magnitude attenuates bins that are not coherent (generalised cross-correlation). s in (0, 1) and r are learned
      per pair and band; r changes sign if the other modality of the pair is the target.
    - G = 2 sigmoid(F_2 gelu(F_1 l + f)): cross-frequency gains of all bands, two layers on the log-powers l of the sum.

    Bidirectional: every output depends on all tokens of every stream. A modality that is absent from the call, or has
    no tokens in a row, adds nothing there. Metrics ``importance.<modality>``: mean w over rows and heads.
    O(L D^2 + D L log L) for each stream's length L; rows of equal lengths are transformed together.

    Knapp & Carter, "The generalized correlation method for estimation of time delay", 1976.
    """

    def setup(self, config: CrossModalConfig, context: LayerContext) -> None:
        super().setup(config, context)
        dim, heads, bands = context.hidden_dim, context.heads(config.head_dim), config.bands
        modalities = config.modalities or context.streams
        if modalities is None or len(modalities) < 2:
            raise ConfigError("cross_modal fuses two streams or more: name them in modalities.")
        if context.streams is not None and set(modalities) != set(context.streams):
            raise ConfigError(
                f"modalities are {', '.join(modalities)}, and the model's are {', '.join(context.streams)}. Leave them "
                "out to use the model's."
            )
        self.names = modalities
        self.index = {name: index for index, name in enumerate(modalities)}
        self.heads = heads
        self.modalities = nn.ModuleList(Modality(dim, heads, bands) for _ in modalities)
        self.alignment = Alignment(modalities, heads, bands)
        self.flow = Flow(heads, bands)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(config.temperature)))
        self.out_proj = nn.Linear(dim, dim, bias=False)
        init_output_projections(self.out_proj)

    def fuse(self, streams: Mapping[str, Stream], target: str, state: State | None, return_state: bool) -> FusionOutput:
        x = streams[target].x
        if x.shape[0] and all(stream.rows is None for stream in streams.values()):
            part, importance = self._fuse_equal({name: stream.x for name, stream in streams.items()}, target)
            return self._output(x, part, {name: share.detach().mean() for name, share in importance.items()})
        lengths = torch.stack([lengths_of(stream) for stream in streams.values()], 1)
        fused = torch.zeros_like(x)
        mean_importance = dict.fromkeys(streams, x.new_zeros(()))
        for group in lengths.unique(dim=0):
            length = dict(zip(streams, group.tolist(), strict=True))
            if length[target] == 0:
                continue
            here = (lengths == group).all(1).nonzero()[:, 0]
            present = {name: stream.x[here, : length[name]] for name, stream in streams.items() if length[name]}
            part, importance = self._fuse_equal(present, target)
            fused = fused.index_put((here,), F.pad(part, (0, 0, 0, x.shape[1] - length[target])).to(x.dtype))
            for name, share in importance.items():
                mean_importance[name] = mean_importance[name] + share.detach().mean(-1).sum() / x.shape[0]
        return self._output(x, fused, mean_importance)

    def _output(self, x: Tensor, fused: Tensor, mean_importance: dict[str, Tensor]) -> FusionOutput:
        metrics = {f"importance.{name}": share for name, share in mean_importance.items()}
        return FusionOutput(x + self.out_proj(fused), metrics=metrics)

    def _fuse_equal(self, streams: dict[str, Tensor], target: str) -> tuple[Tensor, dict[str, Tensor]]:
        """Rows of equal lengths: the fused (B, L of the target, D), and the importance (B, H) of each stream."""
        parts = {name: cast(Modality, self.modalities[self.index[name]]) for name in streams}
        projected = {name: part.in_proj(streams[name]).transpose(1, 2) for name, part in parts.items()}
        points = projected[target].shape[-1]
        with torch.autocast(projected[target].device.type, enabled=False):
            spectra = {name: self._spectrum(u, points) for name, u in projected.items()}
            power = {name: _power(spectrum) for name, spectrum in spectra.items()}
            bins = torch.arange(points // 2 + 1, dtype=power[target].dtype, device=power[target].device)
            hat = hats(bins / points, self.config.bands)
            levels = {name: self._levels(p, hat) for name, p in power.items()}
            inverse_temperature = torch.exp(-self.log_temperature)
            scores = torch.stack([part.score(levels[name]) for name, part in parts.items()])
            importance = dict(zip(parts, (inverse_temperature * scores).softmax(0), strict=True))
            aligned = []
            for name, part in parts.items():
                gate = 2 * torch.sigmoid(inverse_temperature * part.gates(levels[name]))
                gain = _to_bins(importance[name][..., None] * gate, hat)  # (B, H, F)
                u = spectra[name]
                if name != target:
                    u = self.alignment(spectra[target], u, power[target], power[name], (target, name), hat)
                aligned.append(_scaled(u, gain))
            total = Spectrum(*(torch.stack(fields).sum(0) for fields in zip(*aligned, strict=True)))
            gain = self.flow(self._levels(_power(total), hat))
            total = _scaled(total, _to_bins(gain, hat) * points**0.5)
            y = self.fft.irfft(Spectrum(*(field.flatten(1, 2) for field in total)), points)
        return y.transpose(1, 2).to(projected[target].dtype), importance

    def _levels(self, power: Tensor, hat: Tensor) -> Tensor:
        """Log-powers of bands, in the parameters' dtype: (B, H, F) -> (B, H, bands)."""
        return log_energies(power, hat).to(self.log_temperature.dtype)

    def _spectrum(self, u: Tensor, points: int) -> Spectrum:
        """(B, D, L) as the orthonormal spectrum of ``points`` samples, in heads: (B, H, C, F)."""
        spectrum = resampled(self.fft.rfft(u, u.shape[-1]), u.shape[-1], points)
        return Spectrum(*(field.unflatten(1, (self.heads, -1)) * points**-0.5 for field in spectrum))


class Modality(Entered):
    """Parameters of one modality: its projection, gates and importance."""

    def __init__(self, dim: int, heads: int, bands: int) -> None:
        super().__init__()
        self.in_proj = nn.Linear(dim, dim, bias=False)
        self.gate = nn.Parameter(torch.zeros(heads, bands))
        self.gate_levels = nn.Parameter(0.1 * bands**-0.5 * torch.randn(heads, bands, bands))
        self.importance = nn.Parameter(torch.full((heads, bands), 1 / bands))

    @entry
    def gates(self, levels: Tensor) -> Tensor:
        """Logits of the gates: (B, H, bands) -> (B, H, bands)."""
        return self.gate + across_bands(levels, self.gate_levels)

    @entry
    def score(self, levels: Tensor) -> Tensor:
        """Logit of the importance, initially the mean level: (B, H, bands) -> (B, H)."""
        return (levels * self.importance).sum(-1)


class Alignment(nn.Module):
    """Multiplies a modality's bins by their coherence with the target, with a learned strength per pair and band."""

    def __init__(self, modalities: tuple[str, ...], heads: int, bands: int) -> None:
        super().__init__()
        self.pairs = list(itertools.combinations(modalities, 2))
        self.strength = nn.Parameter(torch.zeros(len(self.pairs), heads, bands))
        self.turn = nn.Parameter(torch.zeros(len(self.pairs), heads, bands))

    def forward(
        self, a: Spectrum, m: Spectrum, power_a: Tensor, power_m: Tensor, pair: tuple[str, str], hat: Tensor
    ) -> Spectrum:
        """The aligned m. a, m: (B, H, C, F), with powers (B, H, F). pair: the names of a and m. hat: (bands, F)."""
        ordered = pair in self.pairs
        index = self.pairs.index(pair if ordered else pair[::-1])
        root = ((power_a + FLOOR) * (power_m + FLOOR)).sqrt()
        strength = _to_bins(torch.sigmoid(self.strength[index]), hat)  # (H, F)
        turn = _to_bins(self.turn[index] if ordered else -self.turn[index], hat)
        real = 1 - strength + strength * (a.real * m.real + a.imag * m.imag).mean(2) / root
        imag = strength * (a.imag * m.real - a.real * m.imag).mean(2) / root
        cosine, sine = torch.cos(turn), torch.sin(turn)
        real, imag = (real * cosine - imag * sine)[:, :, None], (real * sine + imag * cosine)[:, :, None]
        return Spectrum(m.real * real - m.imag * imag, m.real * imag + m.imag * real)


class Flow(nn.Module):
    """Gain of each band from the log-powers of all bands, by two layers per head."""

    def __init__(self, heads: int, bands: int) -> None:
        super().__init__()
        self.first = nn.Parameter(bands**-0.5 * torch.randn(heads, 2 * bands, bands))
        self.bias = nn.Parameter(torch.zeros(heads, 2 * bands))
        self.second = nn.Parameter(0.1 * (2 * bands) ** -0.5 * torch.randn(heads, bands, 2 * bands))

    def forward(self, levels: Tensor) -> Tensor:
        """Log-powers to gains: (B, H, bands) -> (B, H, bands)."""
        inner = F.gelu(across_bands(levels, self.first) + self.bias)
        return 2 * torch.sigmoid(across_bands(inner, self.second))


def _power(spectrum: Spectrum) -> Tensor:
    """Mean power over a head's channels: (B, H, F)."""
    return (spectrum.real.square() + spectrum.imag.square()).mean(2)


def _to_bins(values: Tensor, hat: Tensor) -> Tensor:
    """Values on bands, interpolated to bins in the spectrum's dtype: (..., bands), (bands, F) -> (..., F)."""
    return values.to(hat.dtype) @ hat


def _scaled(spectrum: Spectrum, gain: Tensor) -> Spectrum:
    return Spectrum(*(field * gain[:, :, None] for field in spectrum))
