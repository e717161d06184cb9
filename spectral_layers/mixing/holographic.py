"""Associative memory: keys coded as phases, bound to values, superposed, and read by unbinding."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from spectral_core import ConfigError
from spectral_layers.context import LayerContext
from spectral_layers.mixing.base import Mixer, MixerConfig, MixerOutput
from spectral_layers.projection import Projection
from spectral_layers.rows import Rows
from spectral_layers.segments import joined, segments
from spectral_layers.short_convolution import ShortConvolution
from spectral_layers.state import State

_CHUNK = 64
_SEGMENT = 2048


class Holographic(Mixer):
    """Per head: M_t = g M_{t-1} + e^{i theta(k_t)} v_t^T, read y_t = Re(e^{-i theta(q_t)} M_t) / E.

    Binding a unit-modulus key to a value is circular convolution over the channel axis, done on the spectrum; unbinding
    multiplies by the conjugate. theta(z) = bandwidth_h W norm(z) with E phases per head and W shared by keys and
    queries, so equal inputs retrieve exactly. Short convolutions make k, q and v; the key's begins as a delay of one
    token: a value is filed under the token before it. Bandwidths fall from pi to 0.4 over the heads (sharp to forgiving
    matching), decays g are spread over the timescales. Output: per-head norm, SiLU gate, projection.

    Strictly causal. O(L): segments of at most 2048 tokens, each continuing the memory of the one before; in a segment,
    chunks of 64 tokens as small matrix products, and one more product over the chunks. Decoding: O(1) in time and
    memory; the memory is (H, 2E, D/H) in float32.

    Plate, "Holographic reduced representations", 1995 (binding by circular convolution); chunked form as in linear
    attention: Hua et al., "Transformer quality in linear time", 2022.
    """

    def __init__(self, context: LayerContext, *, heads: int, phases: int, timescales: tuple[float, float]) -> None:
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
        self.phase_proj = Projection(dim, heads * phases, bias=False)
        self.value_proj = nn.Linear(dim, dim, bias=False)
        self.gate_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim, bias=False)
        nn.init.normal_(self.phase_proj.weight, std=dim**-0.5)
        for projection in (self.value_proj, self.gate_proj, self.out_proj):
            nn.init.normal_(projection.weight, std=0.02)
        nn.init.zeros_(self.gate_proj.bias)
        self.bandwidth = nn.Parameter(torch.logspace(math.log10(math.pi), math.log10(0.4), heads))
        shortest, longest = timescales
        self.log_decay = nn.Parameter(torch.linspace(math.log(1 / longest), math.log(1 / shortest), heads))

    def mix(self, x: Tensor, rows: Rows | None, state: State | None, return_state: bool) -> MixerOutput:
        recent, memory = (None, None) if state is None else (state["recent"], state["memory"])
        weight = self._phase_weight()

        def mixed() -> Iterator[Tensor]:
            nonlocal recent, memory
            for here in segments(x, most=None if torch.compiler.is_compiling() else _SEGMENT):
                part, given = x[:, here], None if rows is None else rows.within(here)
                inputs = part.transpose(1, 2)
                key, query, value = (z.transpose(1, 2) for z in self.short.each(inputs, recent))
                keys = self._features(self.key_norm(key), weight)
                queries = self._features(self.query_norm(query), weight)
                values = self._split(self.value_proj(value)).to(keys.dtype)
                if memory is not None:
                    memory = memory.to(keys.dtype)
                with torch.autocast(x.device.type, enabled=False):
                    y = self._read(queries, keys, values, memory)
                    y = F.layer_norm(y, y.shape[-1:]).transpose(1, 2).flatten(-2)
                yield self.out_proj(y.to(x.dtype) * F.silu(self.gate_proj(part)))
                if return_state or here.stop < x.shape[1]:
                    recent = self.short.remember(inputs, given, recent)
                    memory = self._store(keys, values, given, memory)

        y = joined(mixed(), x.shape[1], dim=1)
        made = None
        if return_state:
            assert recent is not None
            assert memory is not None
            made = self.new_state(x, rows, state, {"recent": recent, "memory": memory})
        return MixerOutput(y, made)

    @torch.no_grad()
    def time_constants(self) -> Tensor:
        """(H,) tokens after which each head's memory has faded to 1/e, for inspection."""
        return 1 / self.log_decay.double().exp()

    def _phase_weight(self) -> Tensor:
        """W times the heads' bandwidths, in float32 at least, since phases turn many times."""
        weight = self.phase_proj.weight.to(torch.promote_types(self.phase_proj.weight.dtype, torch.float32))
        return weight * self.bandwidth.repeat_interleave(self.phases)[:, None]

    def _features(self, z: Tensor, weight: Tensor) -> Tensor:
        """Cosines and sines of the phases: (B, H, L, 2E), in the weight's precision."""
        with torch.autocast(z.device.type, enabled=False):
            theta = self._split(F.linear(z.to(weight.dtype), weight))
            return torch.cat([theta.cos(), theta.sin()], -1)

    def _split(self, z: Tensor) -> Tensor:
        return z.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _rates(self) -> Tensor:
        """Decay per token and head, (H, 1, 1), as a positive exponent: g = exp(-rate)."""
        return self.log_decay.exp()[:, None, None]

    def _read(self, queries: Tensor, keys: Tensor, values: Tensor, memory: Tensor | None) -> Tensor:
        """All reads (B, H, L, C), from the memory so far and the tokens up to each."""
        length = queries.shape[2]
        size = min(_CHUNK, length)
        padding = -length % size
        if padding:
            queries, keys, values = (F.pad(z, (0, 0, 0, padding)) for z in (queries, keys, values))
        q, k, v = (z.unflatten(2, (-1, size)) for z in (queries, keys, values))
        rate = self._rates().to(q.dtype)
        t = torch.arange(size, device=q.device, dtype=q.dtype)
        lag = (t[:, None] - t).clamp(min=0)
        within = torch.exp(-rate * lag).tril()[:, None]  # (H, 1, size, size)
        y = ((q @ k.transpose(-1, -2)) * within) @ v
        before = self._memories(k, v, rate, memory)
        if before is not None:
            # Decay meets the C channels of what is read, not the 2E features: fewer products, the same sum.
            y = y + (q @ before) * torch.exp(-rate * (t + 1)[:, None])[:, None]
        return y.flatten(2, 3)[:, :, :length] / self.phases

    def _memories(self, k: Tensor, v: Tensor, rate: Tensor, memory: Tensor | None) -> Tensor | None:
        """The memory before each chunk: (B, H, chunks, 2E, C)."""
        chunks, size = k.shape[2:4]
        if chunks == 1:
            return None if memory is None else memory[:, :, None]
        t = torch.arange(size, device=k.device, dtype=k.dtype)
        stored = k.transpose(-1, -2) @ (v * torch.exp(-rate * (size - 1 - t)[:, None])[:, None])
        # Chunk c sees what chunk j < c stored, faded over the chunks between, as a product of matrices over chunks.
        chunk = torch.arange(chunks, device=k.device, dtype=k.dtype)
        between = chunk[:, None] - 1 - chunk
        fades = torch.exp(-rate * size * between.clamp(min=0)).tril(-1)  # (H, chunks, chunks)
        before = (fades @ stored.flatten(-2)).view_as(stored)
        if memory is not None:
            before = before + torch.exp(-rate * size * chunk[:, None])[..., None] * memory[:, :, None]
        return before

    def _store(self, keys: Tensor, values: Tensor, rows: Rows | None, memory: Tensor | None) -> Tensor:
        """The memory after the call, of each row's own length."""
        length = keys.shape[2]
        t = torch.arange(length, device=keys.device)
        ages = (length - 1 - t).expand(keys.shape[0], -1) if rows is None else rows.lengths[:, None] - 1 - t
        rate = self._rates().to(keys.dtype)[..., 0]  # (H, 1)
        weight = torch.where(ages[:, None] >= 0, torch.exp(-rate * ages.clamp(min=0)[:, None]), 0.0)  # (B, H, L)
        stored = keys.transpose(-1, -2) @ (values * weight[..., None])
        if memory is None:
            return stored
        total = torch.full_like(ages[:, :1], length) if rows is None else rows.lengths[:, None]
        return stored + torch.exp(-rate * total[:, None])[..., None] * memory


class HolographicConfig(MixerConfig):
    """Associative memory of phase-coded keys bound to values; O(1) state."""

    type: Literal["holographic"] = "holographic"
    head_dim: PositiveInt = 32
    """Channels per head."""
    phases: PositiveInt = 64
    """Phases per head: the memory's capacity grows with them."""
    timescales: tuple[PositiveFloat, PositiveFloat] = Field(default=(8.0, 4096.0))
    """Shortest and longest initial time constant of the heads' memories, in tokens."""

    def build(self, context: LayerContext) -> Holographic:
        heads, rest = divmod(context.hidden_dim, self.head_dim)
        if rest:
            raise ConfigError(f"head_dim {self.head_dim} does not divide hidden_dim {context.hidden_dim}.")
        return Holographic(context, heads=heads, phases=self.phases, timescales=self.timescales)
