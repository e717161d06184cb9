"""Holographic memory: keys coded as phases, bound to values, superposed, and read by unbinding."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from spectral_core import ConfigError
from spectral_core.config import Scale, Width
from spectral_kernels.delta_rule.chunked import delta_rule
from spectral_layers.context import LayerContext
from spectral_layers.initialisation import begin_reading, begin_writing
from spectral_layers.mixing.base import Mixer, MixerConfig, MixerOutput
from spectral_layers.projection import PreciseProjection
from spectral_layers.rows import Rows
from spectral_layers.segments import joined, segments
from spectral_layers.short_convolution import ShortConvolution
from spectral_layers.state import State

_SEGMENT = 2048


class Holographic(Mixer):
    """Per head: M_t = g M_{t-1} + e^{i theta(k_t)} v_t^T, read y_t = Re(e^{-i theta(q_t)} M_t) / E.

    Binding a unit-modulus key to a value is circular convolution over the channel axis, done on the spectrum; unbinding
    multiplies by the conjugate. theta(z) = bandwidth_h W norm(z) with E phases per head and W shared by keys and
    queries, so equal inputs retrieve exactly. Short convolutions make k, q and v; the key's begins as a delay of one
    token: a value is filed under the token before it. Bandwidths fall from pi to 0.4 over the heads (sharp to forgiving
    matching), decays g = e^-r are spread over the timescales. Output: per-head norm, SiLU gate, projection.

    With forgetting, a token decides how fast its heads fade what came before it: r_t = r softplus(w_h x_t + b_h), which
    begins as r. With correcting, it stores what the memory does not say yet under its key, so that keys which are alike
    do not drown each other, as far as it decides: b_t = sigmoid(w_h x_t + b_h), which begins half-way (the delta rule,
    :mod:`spectral_kernels.delta_rule`).

    Strictly causal. O(L): segments of at most 2048 tokens, each continuing the memory of the one before; in a segment,
    chunks of 32 tokens as small matrix products, and one more product over the chunks, or, correcting, one chunk after
    the other. Decoding: O(1) in time and memory; the memory is (H, 2E, D/H) in float32.

    Plate, "Holographic reduced representations", 1995 (binding by circular convolution); chunked form as in linear
    attention: Hua et al., "Transformer quality in linear time", 2022.
    """

    def __init__(
        self,
        context: LayerContext,
        *,
        heads: int,
        phases: int,
        timescales: tuple[float, float],
        forgetting: bool,
        correcting: bool,
    ) -> None:
        super().__init__(context)
        dim = context.hidden_dim
        self.heads = heads
        self.phases = phases
        self.short = ShortConvolution(dim, copies=3)
        with torch.no_grad():
            self.short.weight.mul_(0.1)
            taps = self.short.weight.view(dim, 3, -1)
            taps[:, 0, -2] = 1.0  # key: the token before
            taps[:, 1:, -1] = 1.0  # query and value: this token
        self.key_norm = nn.LayerNorm(dim)
        self.query_norm = nn.LayerNorm(dim)
        self.phase_proj = PreciseProjection(dim, heads * phases, bias=False)
        self.value_proj = nn.Linear(dim, dim, bias=False)
        self.gate_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim, bias=False)
        begin_reading(self.phase_proj, self.value_proj, self.gate_proj)
        begin_writing(self.out_proj)
        nn.init.zeros_(self.gate_proj.bias)
        self.bandwidth = nn.Parameter(torch.logspace(math.log10(math.pi), math.log10(0.4), heads))
        shortest, longest = timescales
        self.log_decay = nn.Parameter(torch.linspace(math.log(1 / longest), math.log(1 / shortest), heads))
        self.forget_proj: nn.Linear | None = None
        if forgetting:
            self.forget_proj = nn.Linear(dim, heads)
            nn.init.zeros_(self.forget_proj.weight)
            nn.init.constant_(self.forget_proj.bias, math.log(math.e - 1))  # softplus gives 1
        self.correct_proj: nn.Linear | None = None
        if correcting:
            self.correct_proj = nn.Linear(dim, heads)
            nn.init.zeros_(self.correct_proj.weight)
            nn.init.zeros_(self.correct_proj.bias)  # half-way

    def mix(self, x: Tensor, rows: Rows | None, state: State | None, return_state: bool) -> MixerOutput:
        recent, memory = (None, None) if state is None else (state["recent"], state["memory"])
        bandwidth = self.bandwidth.repeat_interleave(self.phases)
        rate = self.log_decay.to(torch.promote_types(self.log_decay.dtype, torch.float32)).exp()[:, None]

        def mixed() -> Iterator[Tensor]:
            nonlocal recent, memory
            for here in segments(x, most=None if torch.compiler.is_compiling() else _SEGMENT):
                part, given = x[:, here], None if rows is None else rows.within(here)
                inputs = part.transpose(1, 2)
                key, query, value = (z.transpose(1, 2) for z in self.short.each(inputs, recent))
                keys = self._features(self.key_norm(key), bandwidth)
                queries = self._features(self.query_norm(query), bandwidth)
                values = self._split(self.value_proj(value)).to(keys.dtype)
                rates, strengths = self._rates(part, rate), self._strengths(part, rate.dtype)
                if given is not None:
                    # Behind a row's end nothing is stored or corrected, and nothing fades.
                    real = given.mask(part.shape[1])[:, None]
                    values, rates = torch.where(real[..., None], values, 0.0), torch.where(real, rates, 0.0)
                    strengths = None if strengths is None else torch.where(real, strengths, 0.0)
                if memory is not None:
                    memory = memory.to(keys.dtype)
                with torch.autocast(x.device.type, enabled=False):
                    y, memory = delta_rule(
                        queries, keys, values, -rates, strengths, scale=1 / self.phases, initial_state=memory
                    )
                    y = F.layer_norm(y, y.shape[-1:]).transpose(1, 2).flatten(-2)
                yield self.out_proj(y.to(x.dtype) * F.silu(self.gate_proj(part)))
                if return_state or here.stop < x.shape[1]:
                    recent = self.short.remember(inputs, given, recent)

        y = joined(mixed(), x.shape[1], dim=1)
        made = None
        if return_state:
            assert recent is not None
            assert memory is not None
            made = self.new_state(x, rows, state, {"recent": recent, "memory": memory})
        return MixerOutput(y, made)

    @torch.no_grad()
    def time_constants(self) -> Tensor:
        """(H,) tokens after which each head's memory has faded to 1/e, unless they decide, for inspection."""
        return 1 / self.log_decay.double().exp()

    def _features(self, z: Tensor, bandwidth: Tensor) -> Tensor:
        """Cosines and sines of the phases, in float32 at least, since they turn many times: (B, H, L, 2E)."""
        theta = self._split(self.phase_proj(z, bandwidth))
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return torch.cat([theta.cos(), theta.sin()], -1)
        both = theta.new_empty(*theta.shape[:-1], 2 * self.phases)
        torch.cos(theta, out=both[..., : self.phases])
        torch.sin(theta, out=both[..., self.phases :])
        return both

    def _split(self, z: Tensor) -> Tensor:
        return z.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _rates(self, x: Tensor, rate: Tensor) -> Tensor:
        """Decay of each head at each token, as a positive exponent: (B, H, L), or (1, H, 1) where it never changes.

        rate: (H, 1), of the heads.
        """
        if self.forget_proj is None:
            return rate[None]
        return rate * F.softplus(self.forget_proj(x).transpose(1, 2).to(rate.dtype))

    def _strengths(self, x: Tensor, dtype: torch.dtype) -> Tensor | None:
        """How far each head corrects itself at each token: (B, H, L)."""
        if self.correct_proj is None:
            return None
        return torch.sigmoid(self.correct_proj(x).transpose(1, 2).to(dtype))


class HolographicConfig(MixerConfig):
    """Associative memory of phase-coded keys bound to values; O(1) state."""

    type: Literal["holographic"] = "holographic"
    head_dim: Width = 32
    """Channels per head."""
    phases: Width = 64
    """Phases per head: the memory's capacity grows with them."""
    timescales: tuple[Scale, Scale] = Field(default=(8.0, 4096.0))
    """Shortest and longest initial time constant of the heads' memories, in tokens."""
    forgetting: bool = False
    """Whether tokens decide how fast each head fades what came before them."""
    correcting: bool = False
    """Whether a token stores what the memory does not say yet under its key, as far as it decides (the delta rule)."""

    def build(self, context: LayerContext) -> Holographic:
        heads, rest = divmod(context.hidden_dim, self.head_dim)
        if rest:
            raise ConfigError(f"head_dim {self.head_dim} does not divide hidden_dim {context.hidden_dim}.")
        return Holographic(
            context,
            heads=heads,
            phases=self.phases,
            timescales=self.timescales,
            forgetting=self.forgetting,
            correcting=self.correcting,
        )
