"""Damped complex modes: FFT convolution in training, a recurrence in decoding."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from spectral_core.config import Scale, Width
from spectral_layers.context import FilterContext
from spectral_layers.filters.base import FilterConfig, Poles, RecurrentFilter
from spectral_layers.rows import span


class ResonantConfig(FilterConfig):
    """Damped complex modes: FFT in training, O(1) recurrence in decoding."""

    type: Literal["resonant"] = "resonant"
    modes: Width = 16
    """Complex modes per channel."""
    timescales: tuple[Scale, Scale] = (2.0, 1024.0)
    """Shortest and longest initial time constant, in tokens."""

    @model_validator(mode="after")
    def _ordered(self) -> ResonantConfig:
        if self.timescales[0] > self.timescales[1]:
            raise ValueError(f"timescales go from the shortest to the longest; got {self.timescales}")
        return self


class Resonant(RecurrentFilter[ResonantConfig]):
    """kernel[d, t] = Re sum_m c[d,m] sqrt(1 - |lambda|^2) lambda[d,m]^t with lambda = exp(-1/tau + i omega).

    Each mode has unit energy before its coefficient c, so that the size of kernels does not depend on tau. Decoding
    keeps one complex number per mode: s_t = lambda s_{t-1} + u_t, y_t = Re sum_m c s_t: O(D M) per token.

    Kernels are computed as products lambda^(aT) lambda^b, by batched real matrix products: O(D M sqrt(L))
    transcendental functions and O(D M L) multiplications. Phases omega t are computed in float64 and reduced modulo
    2 pi before they are cast, since float32 loses their precision after some thousand tokens.

    A diagonal state space (Gu, Goel, Gupta & Re, "On the parameterization and initialization of diagonal state space
    models", 2022) in discrete time, with energy-normalised modes.
    """

    def setup(self, config: ResonantConfig, context: FilterContext) -> None:
        channels, modes = context.channels, config.modes
        shortest, longest = config.timescales
        decay = torch.empty(channels, modes).uniform_(math.log(1 / longest), math.log(1 / shortest))
        self.log_decay = nn.Parameter(decay)
        # Channels differ in bandwidth: some have low frequencies only.
        self.frequency = nn.Parameter(torch.rand(channels, modes) * math.pi * torch.rand(channels, 1))
        self.coefficient = nn.Parameter(torch.randn(channels, modes, 2) / math.sqrt(modes))

    def kernel(self, length: int) -> Tensor:
        return self._evaluate(self._weights()[None], length, start=0)[0].to(self.coefficient.dtype)

    @torch.no_grad()
    def poles(self) -> Poles:
        """The modes lambda, in float64. The strength of a mode is |c|, since modes have unit energy before c."""
        turns = self.frequency.double() / (2 * math.pi)
        return Poles(
            time_constant=torch.exp(-self.log_decay.double()),
            frequency=(turns - turns.round()).abs(),
            strength=self.coefficient.double().norm(dim=-1),
        )

    def carry(self, memory: Tensor, length: int) -> Tensor:
        weights = _complex_multiply(self._weights().double(), memory)
        return self._evaluate(weights, length, start=1)

    def absorb(self, memory: Tensor | None, u: Tensor, lengths: Tensor | None) -> Tensor:
        length = u.shape[-1]
        fine, coarse = _table_sizes(length)
        points, u = coarse * fine, u.double()
        # Rows are right-aligned, so that all use one table of powers.
        padded = F.pad(u, (points - length, 0)) if lengths is None else span(u, lengths - points, points)
        inner = self._powers(torch.arange(fine - 1, -1, -1, device=u.device))  # (D, fine, M, 2)
        outer = self._powers(torch.arange(coarse - 1, -1, -1, device=u.device) * fine)
        parts = torch.einsum("bdaf,dfmz->bdamz", padded.unflatten(-1, (coarse, fine)), inner)
        absorbed = _complex_multiply(parts, outer).sum(2)
        if memory is None:
            return absorbed
        steps = torch.tensor([length], device=u.device) if lengths is None else lengths
        decay = self._powers(steps).movedim(1, 0)  # (1 or B, D, M, 2)
        return absorbed + _complex_multiply(decay, memory)

    def step(self, memory: Tensor, u: Tensor, *tables: Tensor) -> tuple[Tensor, Tensor]:
        turn, read = tables or self.tables()
        memory = turn[..., 0] * memory[..., :1] + turn[..., 1] * memory[..., 1:]
        memory = memory + F.pad(u.double()[..., None, None], (0, 1))
        return (memory * read).sum((-1, -2)), memory

    def tables(self) -> tuple[Tensor, Tensor]:
        """Multiplication by lambda as a real 2 x 2 matrix, (D, M, 2, 2), and the weights of Re(c s), (D, M, 2)."""
        real, imag = self._powers(torch.ones(1, device=self.frequency.device))[:, 0].unbind(-1)
        turn = torch.stack([torch.stack([real, -imag], -1), torch.stack([imag, real], -1)], -2)
        weights = self._weights().double()
        return turn, torch.stack([weights[..., 0], -weights[..., 1]], -1)

    def _weights(self) -> Tensor:
        """Coefficients with the modes' energies normalised: (D, M, 2)."""
        energy = -torch.expm1(-2 * self.log_decay.double().exp())
        return self.coefficient * energy.sqrt().to(self.coefficient.dtype)[..., None]

    def _powers(self, times: Tensor) -> Tensor:
        """lambda^t for integer times (T,): (D, T, M, 2) in float64."""
        t = times.double()[:, None]
        phase = torch.remainder(self.frequency.double()[:, None] * t, 2 * math.pi)
        magnitude = torch.exp(-self.log_decay.double().exp()[:, None] * t)
        return torch.stack([magnitude * torch.cos(phase), magnitude * torch.sin(phase)], -1)

    def _evaluate(self, weights: Tensor, length: int, *, start: int) -> Tensor:
        """Re sum_m weights lambda^t for t in [start, start + length): weights (B, D, M, 2) -> (B, D, length)."""
        fine, coarse = _table_sizes(length)
        device = weights.device
        left = _complex_multiply(weights[:, :, None], self._powers(torch.arange(coarse, device=device) * fine + start))
        right = self._powers(torch.arange(fine, device=device))
        # Re(a b) = Re a Re b - Im a Im b, as one real product over 2M.
        right = torch.stack([right[..., 0], -right[..., 1]], -1).flatten(-2)
        # Outside autocast, which would round the powers to half precision.
        with torch.autocast(device.type, enabled=False):
            product = left.flatten(-2).to(weights.dtype) @ right.transpose(-1, -2).to(weights.dtype)
        return product.flatten(-2)[..., :length]


def _table_sizes(length: int) -> tuple[int, int]:
    """Sizes of a fine and a coarse table, both about sqrt(length), whose products give at least ``length`` powers."""
    fine = 1
    while fine * fine < length:
        fine *= 2
    return fine, -(-length // fine)


def _complex_multiply(a: Tensor, b: Tensor) -> Tensor:
    """Product of complex numbers, each a pair of reals in the last axis."""
    real = a[..., 0] * b[..., 0] - a[..., 1] * b[..., 1]
    imag = a[..., 0] * b[..., 1] + a[..., 1] * b[..., 0]
    return torch.stack([real, imag], -1)
