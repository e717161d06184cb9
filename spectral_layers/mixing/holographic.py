"""Associative memory: keys coded as phases, bound to values, superposed, and read by unbinding."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
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


@dataclass(frozen=True)
class _Fades:
    """What each head's decay g leaves over the distances between S tokens of a chunk, and between N chunks."""

    within: Tensor
    """(H, 1, S, S): of token s at token t >= s, g^(t - s); zero before it."""
    on_reading: Tensor
    """(H, 1, S, 1): of what stood before the chunk, at token t, g^(t + 1)."""
    on_storing: Tensor
    """(H, 1, S, 1): of token t at the chunk's end, g^(S - 1 - t)."""
    across: Tensor
    """(H, N + 1, N): of chunk j's end at the beginning of chunk c > j, g^(S (c - 1 - j)); zero before it."""
    since: Tensor
    """(H, N + 1, 1, 1): of the memory before all chunks, at the beginning of chunk c, g^(S c)."""

    @classmethod
    def of(cls, rate: Tensor, length: int) -> _Fades:
        """Of so many tokens. rate: (H, 1, 1), g = exp(-rate)."""
        size = min(_CHUNK, length)
        chunks = -(-length // size)
        t = torch.arange(size, device=rate.device, dtype=rate.dtype)
        chunk = torch.arange(chunks + 1, device=rate.device, dtype=rate.dtype)
        lag = (t[:, None] - t).clamp(min=0)
        between = (chunk[:, None] - 1 - chunk[:-1]).clamp(min=0)
        return cls(
            within=torch.exp(-rate * lag).tril()[:, None],
            on_reading=torch.exp(-rate * (t + 1)[:, None])[:, None],
            on_storing=torch.exp(-rate * (size - 1 - t)[:, None])[:, None],
            across=torch.exp(-rate * size * between).tril(-1),
            since=torch.exp(-rate * size * chunk[:, None])[..., None],
        )


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
        weight, scale = self._phase_weight(x.shape[1])
        rate = self._rates().to(weight.dtype)
        fades: dict[int, _Fades] = {}

        def mixed() -> Iterator[Tensor]:
            nonlocal recent, memory
            for here in segments(x, most=None if torch.compiler.is_compiling() else _SEGMENT):
                part, given = x[:, here], None if rows is None else rows.within(here)
                length = part.shape[1]
                inputs = part.transpose(1, 2)
                key, query, value = (z.transpose(1, 2) for z in self.short.each(inputs, recent))
                keys = self._features(self.key_norm(key), weight, scale)
                queries = self._features(self.query_norm(query), weight, scale)
                values = self._split(self.value_proj(value)).to(keys.dtype)
                if memory is not None:
                    memory = memory.to(keys.dtype)
                with torch.autocast(x.device.type, enabled=False):
                    if length == 1 and given is None and memory is not None:
                        after = torch.exp(-rate) * memory + keys.transpose(-1, -2) * values
                        y = (queries @ after) / self.phases
                    else:
                        if length not in fades:
                            fades[length] = _Fades.of(rate, length)
                        y, after = self._read(queries, keys, values, memory, fades[length])
                    y = F.layer_norm(y, y.shape[-1:]).transpose(1, 2).flatten(-2)
                yield self.out_proj(y.to(x.dtype) * F.silu(self.gate_proj(part)))
                if return_state or here.stop < x.shape[1]:
                    recent = self.short.remember(inputs, given, recent)
                    full = given is None and length % min(_CHUNK, length) == 0
                    memory = after if full else self._store(keys, values, given, memory)

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

    def _phase_weight(self, length: int) -> tuple[Tensor, Tensor | None]:
        """W in float32 at least, since phases turn many times, and the bandwidths of its rows unless it has them.

        The phases of one token are fewer than the weights, and are multiplied instead.
        """
        weight = self.phase_proj.weight.to(torch.promote_types(self.phase_proj.weight.dtype, torch.float32))
        bandwidth = self.bandwidth.to(weight.dtype).repeat_interleave(self.phases)
        return (weight, bandwidth) if length == 1 else (weight * bandwidth[:, None], None)

    def _features(self, z: Tensor, weight: Tensor, scale: Tensor | None) -> Tensor:
        """Cosines and sines of the phases: (B, H, L, 2E), in the weight's precision."""
        with torch.autocast(z.device.type, enabled=False):
            theta = F.linear(z.to(weight.dtype), weight)
            theta = self._split(theta if scale is None else theta * scale)
            if torch.is_grad_enabled() or torch.compiler.is_compiling():
                return torch.cat([theta.cos(), theta.sin()], -1)
            both = theta.new_empty(*theta.shape[:-1], 2 * self.phases)
            torch.cos(theta, out=both[..., : self.phases])
            torch.sin(theta, out=both[..., self.phases :])
            return both

    def _split(self, z: Tensor) -> Tensor:
        return z.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _rates(self) -> Tensor:
        """Decay per token and head, (H, 1, 1), as a positive exponent: g = exp(-rate)."""
        return self.log_decay.exp()[:, None, None]

    def _read(
        self, queries: Tensor, keys: Tensor, values: Tensor, memory: Tensor | None, fades: _Fades
    ) -> tuple[Tensor, Tensor]:
        """All reads (B, H, L, C), from the memory so far and the tokens up to each; the memory after whole chunks."""
        length, size = queries.shape[2], fades.within.shape[-1]
        padding = -length % size
        if padding:
            queries, keys, values = (F.pad(z, (0, 0, 0, padding)) for z in (queries, keys, values))
        q, k, v = (z.unflatten(2, (-1, size)) for z in (queries, keys, values))
        y = ((q @ k.transpose(-1, -2)) * fades.within) @ v
        stored = (k.transpose(-1, -2) @ (v * fades.on_storing)).flatten(-2)  # (B, H, N, 2E C), of each chunk

        def memories(at: slice) -> Tensor:
            """What the chunks before have stored, faded over those between, as a product of matrices over chunks."""
            found = (fades.across[:, at] @ stored).unflatten(-1, (k.shape[-1], v.shape[-1]))
            return found if memory is None else found + fades.since[:, at] * memory[:, :, None]

        if memory is not None or q.shape[2] > 1:
            # Decay meets the C channels of what is read, not the 2E features: fewer products, the same sum.
            y = y + (q @ memories(slice(0, -1))) * fades.on_reading
        return y.flatten(2, 3)[:, :, :length] / self.phases, memories(slice(-1, None))[:, :, 0]

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
