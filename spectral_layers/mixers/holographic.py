"""Gated delta-rule memory with unit-modulus (phase) keys."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from spectral_core.config import Scale, Width
from spectral_core.renamed import Renamed
from spectral_kernels.delta_rule.chunked import delta_rule
from spectral_layers.context import LayerContext
from spectral_layers.initialisation import init_input_projections, init_output_projections
from spectral_layers.mixers.base import Mixer, MixerConfig, MixerOutput
from spectral_layers.projection import PreciseProjection
from spectral_layers.rows import Rows
from spectral_layers.segments import joined, segments
from spectral_layers.short_convolution import ShortConvolution
from spectral_layers.state import State

Decay = Literal["constant", "per_token"]
Update = Literal["additive", "delta"]

_SEGMENT = 2048


class HolographicConfig(MixerConfig):
    """Gated delta rule, or linear attention, with unit-modulus (phase) keys; O(1) state."""

    earlier_options: ClassVar[Mapping[str, Renamed]] = {
        "forgetting": Renamed("decay", {True: "per_token", False: "constant"}),
        "correcting": Renamed("update", {True: "delta", False: "additive"}),
    }

    type: Literal["holographic"] = "holographic"
    head_dim: Width = 32
    """Channels per head."""
    phases: Width = 64
    """Phases per head; the capacity of the state grows with them."""
    timescales: tuple[Scale, Scale] = Field(default=(8.0, 4096.0))
    """Shortest and longest initial time constant of the heads' decays, in tokens."""
    decay: Decay = "constant"
    """Decay of each head's state: constant, or a function of the token."""
    update: Update = "additive"
    """What a token stores under its key: its value, or, by the delta rule, a gate times the difference of its value
    from what the state returns for that key."""


class Holographic(Mixer[HolographicConfig]):
    """A gated delta rule with unit-modulus (phase) keys; with an additive update, linear attention with such keys.

    Per head, with E phases: S_t = e^(g_t) S_{t-1} + k_t u_t^T, o_t = S_t^T q_t / E, and k = (cos theta, sin theta), so
    |k|^2 = E (:mod:`spectral_kernels.delta_rule`).

    - theta = bandwidth_h W norm(z), where z is the key or the query; they share W, so equal inputs have equal phases.
      Bandwidths fall from pi in the first head to 0.4 in the last: from sharp to smooth similarity of keys.
    - Short convolutions precede q, k and v. The key's is initialised as a delay of one token, so that a value is stored
      under the token before it.
    - ``decay``: constant, g = -r_h, or per token, g_t = -r_h softplus(w_h x_t + b_h), initialised to the constant.
      The rates r_h are spread over the timescales.
    - ``update``: additive, u = v; or the delta rule, u_t = beta_t (v_t - (e^(g_t) S_{t-1})^T k_t / E), which stores
      the part of the value that the state does not return yet; beta_t = sigmoid(w_h x_t + b_h), initialised to 1/2.
    - Outputs pass a norm per head, a SiLU gate and a projection.

    Storing a value under a phase key is binding by circular convolution, computed on the spectrum; reading multiplies
    by the conjugate key.

    Causal. O(L): segments of at most 2048 tokens, divided into chunks of 32. Decoding: O(1) in time and memory; the
    state is (H, 2E, D/H) in float32.

    Plate, "Holographic reduced representations", 1995; Yang, Kautz & Hatamizadeh, "Gated delta networks", 2025; the
    chunked form: Hua et al., "Transformer quality in linear time", 2022.
    """

    earlier_names: ClassVar[Mapping[str, str]] = {"forget_proj": "decay_proj", "correct_proj": "beta_proj"}

    def setup(self, config: HolographicConfig, context: LayerContext) -> None:
        super().setup(config, context)
        dim, heads, phases = context.hidden_dim, context.heads(config.head_dim), config.phases
        self.heads = heads
        self.phases = phases
        self.short = ShortConvolution(dim, copies=3)
        with torch.no_grad():
            self.short.weight.mul_(0.1)
            taps = self.short.weight.view(dim, 3, -1)
            taps[:, 0, -2] = 1.0  # k: the token before
            taps[:, 1:, -1] = 1.0  # q and v: this token
        self.key_norm = nn.LayerNorm(dim)
        self.query_norm = nn.LayerNorm(dim)
        self.phase_proj = PreciseProjection(dim, heads * phases, bias=False)
        self.value_proj = nn.Linear(dim, dim, bias=False)
        self.gate_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim, bias=False)
        init_input_projections(self.phase_proj, self.value_proj, self.gate_proj)
        init_output_projections(self.out_proj)
        nn.init.zeros_(self.gate_proj.bias)
        self.bandwidth = nn.Parameter(torch.logspace(math.log10(math.pi), math.log10(0.4), heads))
        shortest, longest = config.timescales
        self.log_decay = nn.Parameter(torch.linspace(math.log(1 / longest), math.log(1 / shortest), heads))
        self.decay_proj: nn.Linear | None = None
        if config.decay == "per_token":
            self.decay_proj = nn.Linear(dim, heads)
            nn.init.zeros_(self.decay_proj.weight)
            nn.init.constant_(self.decay_proj.bias, math.log(math.e - 1))  # softplus gives 1
        self.beta_proj: nn.Linear | None = None
        if config.update == "delta":
            self.beta_proj = nn.Linear(dim, heads)
            nn.init.zeros_(self.beta_proj.weight)
            nn.init.zeros_(self.beta_proj.bias)  # beta = 1/2

    def mix(self, x: Tensor, rows: Rows | None, state: State | None, return_state: bool) -> MixerOutput:
        recent, memory = (None, None) if state is None else (state["recent"], state["memory"])
        bandwidth = self.bandwidth.repeat_interleave(self.phases)
        rate = self.log_decay.to(torch.promote_types(self.log_decay.dtype, torch.float32)).exp()[:, None]

        def outputs() -> Iterator[Tensor]:
            nonlocal recent, memory
            for here in segments(x, most=None if torch.compiler.is_compiling() else _SEGMENT):
                part, part_rows = x[:, here], None if rows is None else rows.within(here)
                inputs = part.transpose(1, 2)
                key, query, value = (z.transpose(1, 2) for z in self.short.each(inputs, recent))
                k = self._features(self.key_norm(key), bandwidth)
                q = self._features(self.query_norm(query), bandwidth)
                v = self._split(self.value_proj(value)).to(k.dtype)
                g, beta = self._log_decays(part, rate), self._betas(part, rate.dtype)
                if part_rows is not None:
                    # Padding leaves the state unchanged.
                    real = part_rows.mask(part.shape[1])[:, None]
                    v, g = torch.where(real[..., None], v, 0.0), torch.where(real, g, 0.0)
                    beta = None if beta is None else torch.where(real, beta, 0.0)
                if memory is not None:
                    memory = memory.to(k.dtype)
                with torch.autocast(x.device.type, enabled=False):
                    o, memory = delta_rule(q, k, v, g, beta, scale=1 / self.phases, initial_state=memory)
                    o = F.layer_norm(o, o.shape[-1:]).transpose(1, 2).flatten(-2)
                yield self.out_proj(o.to(x.dtype) * F.silu(self.gate_proj(part)))
                if return_state or here.stop < x.shape[1]:
                    recent = self.short.next_past(inputs, part_rows, recent)

        y = joined(outputs(), x.shape[1], dim=1)
        if not return_state:
            return MixerOutput(y)
        assert recent is not None
        assert memory is not None
        return MixerOutput(y, self.new_state(x, rows, state, {"recent": recent, "memory": memory}))

    @torch.no_grad()
    def time_constants(self) -> Tensor:
        """(H,) tokens in which each head's state decays to 1/e, for inspection; the initial value if per token."""
        return 1 / self.log_decay.double().exp()

    def _features(self, z: Tensor, bandwidth: Tensor) -> Tensor:
        """(B, H, L, 2E) cosines and sines of the phases, in float32 at least, since phases reach many turns."""
        theta = self._split(self.phase_proj(z, bandwidth))
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return torch.cat([theta.cos(), theta.sin()], -1)
        features = theta.new_empty(*theta.shape[:-1], 2 * self.phases)
        torch.cos(theta, out=features[..., : self.phases])
        torch.sin(theta, out=features[..., self.phases :])
        return features

    def _split(self, z: Tensor) -> Tensor:
        return z.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _log_decays(self, x: Tensor, rate: Tensor) -> Tensor:
        """g: (B, H, L), or (1, H, 1) if constant. rate: (H, 1), r of each head."""
        if self.decay_proj is None:
            return -rate[None]
        return -rate * F.softplus(self.decay_proj(x).transpose(1, 2).to(rate.dtype))

    def _betas(self, x: Tensor, dtype: torch.dtype) -> Tensor | None:
        """beta: (B, H, L); None for an additive update."""
        if self.beta_proj is None:
            return None
        return torch.sigmoid(self.beta_proj(x).transpose(1, 2).to(dtype))
