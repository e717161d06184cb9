"""The contract of a gate: it maps a spectrum to real gains and phases per bin, and never sees the time domain.

The mixer decides which span a gate sees, so one implementation in real tensor code serves causal and bidirectional
models on every backend. A gate must not mix rows of its batch: in a causal mixer they are blocks of one sequence.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from spectral_core.config import PartConfig
from spectral_core.trees import tree
from spectral_layers.context import GateContext
from spectral_layers.part import C, Part
from spectral_layers.report import Report

SMOOTHING = 1e-3
"""Magnitudes are sqrt(re^2 + im^2 + SMOOTHING^2): differentiable at zero, exact well above it."""


class SpectralView:
    """The spectrum of a span, as real fields (B, H, C, F).

    real, imag: the transform, orthonormal (scaled by 1/sqrt(n)), so that fields do not grow with the span.
    frequency: (F,) in cycles per token, from 0 to 0.5.
    """

    def __init__(self, real: Tensor, imag: Tensor, frequency: Tensor) -> None:
        self.real = real
        self.imag = imag
        self.frequency = frequency
        self._magnitude: Tensor | None = None

    def to(self, dtype: torch.dtype) -> SpectralView:
        """The view in this dtype; the same object if it has it already."""
        if self.real.dtype == dtype:
            return self
        return SpectralView(self.real.to(dtype), self.imag.to(dtype), self.frequency.to(dtype))

    @property
    def magnitude(self) -> Tensor:
        """Smoothed magnitude, at least SMOOTHING."""
        if self._magnitude is None:  # functools.cached_property takes a lock, which breaks compiled graphs
            self._magnitude = torch.sqrt(self.real.square() + self.imag.square() + SMOOTHING**2)
        return self._magnitude

    @property
    def relative_magnitude(self) -> Tensor:
        """Magnitude over its root mean square across bins: the shape of the spectrum, whatever its level."""
        return self.magnitude / self.magnitude.square().mean(-1, keepdim=True).sqrt()

    @property
    def relative_power(self) -> Tensor:
        """Power of each bin, averaged over the head's channels: (B, H, F), 1 on average over bins."""
        return self.relative_magnitude.square().mean(2)

    @property
    def phasor(self) -> tuple[Tensor, Tensor]:
        """Cosine and sine of the phase; both tend to 0 with the magnitude of the bin."""
        return self.real / self.magnitude, self.imag / self.magnitude

    @property
    def phase(self) -> Tensor:
        """Phase in radians times the squared length of the phasor, so that gradients are bounded at empty bins."""
        cosine, sine = self.phasor
        weight = cosine.square() + sine.square()
        # The gradient of atan2 divides by the weight, which may underflow; below this the weighted phase is about 0.
        present = weight > 1e-12
        angle = torch.atan2(torch.where(present, sine, 0.0), torch.where(present, cosine, 1.0))
        return weight * angle


@tree
@dataclass
class Modulation(Report):
    """A change of each bin: gain >= 0 and phase in radians, broadcastable to (B, H, C, F); None for no change."""

    gain: Tensor | None = None
    phase: Tensor | None = None

    def then(self, other: Modulation) -> Modulation:
        """The composition with ``other``: gains multiply, phases add, losses and metrics are merged."""
        gain = other.gain if self.gain is None else self.gain if other.gain is None else self.gain * other.gain
        phase = other.phase if self.phase is None else self.phase if other.phase is None else self.phase + other.phase
        return Modulation(gain, phase) + self + other

    def applied(self, view: SpectralView) -> SpectralView:
        """The view with gain and phase applied to its bins."""
        real, imag = view.real, view.imag
        if self.gain is not None:
            real, imag = real * self.gain, imag * self.gain
        if self.phase is not None:
            cosine, sine = torch.cos(self.phase), torch.sin(self.phase)
            real, imag = real * cosine - imag * sine, real * sine + imag * cosine
        return SpectralView(real, imag, view.frequency)


class Gate(Part[GateContext, C]):
    """Base of gates. The output for a row of the view must not depend on other rows."""

    context_class = GateContext
    must_return = (("forward", Modulation),)

    @abstractmethod
    def forward(self, view: SpectralView) -> Modulation:
        """The modulation of a view's bins. F depends on the span: define parameters over frequency, not per bin."""


class GateConfig(PartConfig):
    """Base of the configs of gates."""

    must_return = (("build", Gate),)

    part_class: ClassVar[Any] = Gate

    def build(self, context: GateContext) -> Gate:
        return self.part_class(context, self)
