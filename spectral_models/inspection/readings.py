"""The readings of a model, as numbers; plots show these and nothing else.

Frequencies are in cycles per token, lags and time constants in tokens, also for parts that count blocks of tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Place:
    """The place of a part: the index of its layer, the mixer's class, its name in the mixer and its own class."""

    layer: int
    mixer: str
    part: str = ""
    kind: str = ""

    def __str__(self) -> str:
        return f"layer {self.layer}, {self.of_layer}"

    @property
    def of_layer(self) -> str:
        """The place without its layer."""
        inside = f".{self.part}" if self.part else ""
        return f"{self.mixer}{inside}" + (f" ({self.kind})" if self.kind else "")


@dataclass(frozen=True)
class FilterReading:
    """A long filter: kernel (D, K) in float64, its taps ``spacing`` tokens apart. ends: whether these are all taps."""

    place: Place
    kernel: Tensor
    spacing: int = 1
    ends: bool = False

    @property
    def points(self) -> int:
        """Points of the transform: a power of two, at least twice the taps, so that no peak falls between bins."""
        return max(64, 2 << (self.kernel.shape[-1] - 1).bit_length())

    @cached_property
    def frequency(self) -> Tensor:
        """(F,) cycles per token, evenly spaced from 0 to half a cycle per tap."""
        return torch.arange(self.points // 2 + 1, dtype=torch.float64) / (self.points * self.spacing)

    @cached_property
    def response(self) -> Tensor:
        """(D, F) complex: sum_t kernel[t] e^(-2 pi i f t)."""
        return torch.fft.rfft(self.kernel, n=self.points)

    @cached_property
    def effective_length(self) -> Tensor:
        """(D,) tokens: the length of the shortest prefix of the kernel with 99 % of its energy."""
        energy = self.kernel.square().cumsum(-1)
        return ((energy < 0.99 * energy[:, -1:]).sum(-1) + 1) * self.spacing

    @cached_property
    def centre(self) -> Tensor:
        """(D,) cycles per token: the mean frequency of each channel's energy."""
        power = self.response.abs().square()
        return (power @ self.frequency) / power.sum(-1).clamp(min=torch.finfo(torch.float64).tiny)

    def summary(self) -> str:
        length = self.effective_length
        longest, seen = int(length.max()), self.kernel.shape[-1] * self.spacing
        of = "" if self.ends or longest < 0.9 * seen else f" of the first {seen:,}, and more may follow"
        shortest, median = int(length.min()), int(length.median())
        return f"99 % of the energy within {shortest:,} to {longest:,} tokens{of}; median {median:,}"


@dataclass(frozen=True)
class PoleReading:
    """Poles of a recurrent filter, (D, M) each, counted in steps of ``spacing`` tokens: see :class:`Poles`."""

    place: Place
    steps: Tensor
    turns: Tensor
    strength: Tensor
    spacing: int = 1

    @property
    def z(self) -> Tensor:
        """(D, M) complex, in the upper half plane: e^(-1/steps + 2 pi i turns)."""
        return torch.polar(torch.exp(-1 / self.steps), 2 * torch.pi * self.turns)

    @property
    def time_constant(self) -> Tensor:
        """(D, M) tokens."""
        return self.steps * self.spacing

    @property
    def frequency(self) -> Tensor:
        """(D, M) cycles per token."""
        return self.turns / self.spacing

    def summary(self) -> str:
        tau = self.time_constant
        return (
            f"{tau.numel():,} poles, time constants {_number(tau.min())} to {_number(tau.max())} tokens "
            f"(median {_number(tau.median())})"
        )


@dataclass(frozen=True)
class MemoryReading:
    """Memories of a mixer other than filters: time constants (N,) in tokens, of heads or channels.

    bandwidth: (N,) radians, the phase per unit of a key; large values match keys sharply.
    """

    place: Place
    time_constant: Tensor
    bandwidth: Tensor | None = None

    def summary(self) -> str:
        tau = self.time_constant
        text = f"{tau.numel():,} memories, time constants {_number(tau.min())} to {_number(tau.max())} tokens"
        if self.bandwidth is None:
            return text
        return f"{text}; bandwidths {self.bandwidth.min():.2f} to {self.bandwidth.max():.2f} rad"


@dataclass(frozen=True)
class TapReading:
    """A short convolution: weights (C, K), tap s meeting the input s tokens ago."""

    place: Place
    taps: Tensor

    @property
    def shares(self) -> Tensor:
        """(K,) the share of each lag in the energy of all taps."""
        energy = self.taps.square().sum(0)
        return energy / energy.sum().clamp(min=torch.finfo(torch.float64).tiny)

    def summary(self) -> str:
        shares = ", ".join(f"{100 * share:.0f}" for share in self.shares.tolist())
        return f"lags 0 to {self.taps.shape[-1] - 1} hold {shares} % of the taps' energy"


@dataclass(frozen=True)
class GateReading:
    """Gains on a text, (N blocks, H, F): root mean squares over a head's channels.

    asked: requested gains at ``bins`` (F,), of gates and sparsity together. realised: the mixer's gains at
    ``frequency`` (F',); None if the mixer does not report them. kept: (N, H, F) of 0 and 1, the bins that the sparsity
    keeps. phase: (N, H, F) requested radians, means over a head's channels.
    """

    place: Place
    bins: Tensor
    asked: Tensor
    frequency: Tensor | None = None
    realised: Tensor | None = None
    kept: Tensor | None = None
    phase: Tensor | None = None

    def summary(self) -> str:
        """A line of text; decibels are of mean gains over blocks, clamped at -60 dB."""
        parts = [f"asked {_span(self.asked)}"]
        if self.realised is not None:
            parts.append(f"realised {_span(self.realised)}")
        if self.kept is not None:
            parts.append(f"{100 * self.kept.mean():.1f} % of the bins kept")
        if self.phase is not None:
            parts.append(f"phases {self.phase.min():+.2f} to {self.phase.max():+.2f} rad")
        return ", ".join(parts)


@dataclass(frozen=True)
class Silence:
    """A part without a reading, and why."""

    place: Place
    why: str

    def __str__(self) -> str:
        return f"{self.place}: {self.why}"


Reading = FilterReading | PoleReading | MemoryReading | TapReading | GateReading


@dataclass
class Inspection:
    """All readings of a model, in the order of its layers, and the parts without any."""

    readings: list[Reading] = field(default_factory=list)
    silent: list[Silence] = field(default_factory=list)


def decibels(gain: Tensor, floor: float = -60.0) -> Tensor:
    """20 log10 of a gain, clamped at the floor."""
    return 20 * torch.log10(gain.clamp(min=10 ** (floor / 20)))


def _span(gain: Tensor) -> str:
    levels = decibels(gain.mean(0))
    return f"{levels.min():+.1f} to {levels.max():+.1f} dB"


def _number(value: Tensor) -> str:
    return f"{value.item():,.1f}" if value < 100 else f"{value.item():,.0f}"
