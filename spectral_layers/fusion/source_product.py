"""Reads a source from a causal target without attention, as a product of the source's spectrum with queries."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spectral_core import UnsupportedInputError
from spectral_core.config import Width
from spectral_layers.context import LayerContext
from spectral_layers.fusion.base import Fusion, FusionConfig, FusionOutput, Stream, lengths_of
from spectral_layers.initialisation import init_input_projections
from spectral_layers.mixers.base import Direction
from spectral_layers.projection import PreciseProjection
from spectral_layers.state import State

_ANCHORS = ("content", "end", "content", "start")
"""Origins of the source positions in successive heads; ``content`` heads have no positions."""


class SourceProductConfig(FusionConfig):
    """Reads a whole source by position and content from its spectrum; strictly causal in the target."""

    directions: ClassVar[frozenset[Direction]] = frozenset({"causal"})

    type: Literal["source_product"] = "source_product"
    head_dim: Width = 32
    """Channels per head. Heads alternate: source positions from the start, from the end, and content alone."""
    phases: Width = 64
    """Phases per head; reads by position are exact for sources of up to twice as many tokens."""


class SourceProduct(Fusion[SourceProductConfig]):
    """y[t] = x[t] + W_o (silu(a[t]) * r[t]), with r the reads of a memory M of the source, per head:

    M = sum_s e^(i theta_s) v_s^T,  r[t] = Re(e^(-i theta_t) M) / E,  theta = W norm(z) + omega p.

    M is the source's spectrum at E frequencies omega_e = pi (e + 1/2) / E, with phases shifted by content; a read is
    the inverse transform at a position that depends on the target's own index and content. Heads differ in the position
    p of a source token: 0 (``content``: theta compares contents alone), its index from the ``end`` (on the spectrum:
    conjugation and a shift), or its index from the ``start``; the target's p is its index t. So at initialisation a
    head reads the t-th source token from either end, exactly for sources of up to 2 E tokens, because then
    sum_e cos(omega_e (p - q)) = 0 for integers p != q; W learns other positions. In longer sources positions repeat
    every 2 E tokens, and content distinguishes them. Reads are sums, not means, and no norm follows, so they contain
    how often a value occurs.

    Strictly causal: the target is not mixed along time, r[t] depends on x[t], t and the source. O((S + L) E D) for S
    source and L target tokens; decoding is O(E D) a token, with a state of (H, 2E, D/H) for any length of the source.

    Plate, "Holographic reduced representations", 1995 (binding on the spectrum); positions as turning phases: Su et
    al., "RoFormer", 2021.
    """

    streams = True

    def setup(self, config: SourceProductConfig, context: LayerContext) -> None:
        super().setup(config, context)
        dim, heads, phases = context.hidden_dim, context.heads(config.head_dim), config.phases
        self.heads = heads
        self.source_norm = nn.LayerNorm(dim)
        self.target_norm = nn.LayerNorm(dim)
        self.key_proj = PreciseProjection(dim, heads * phases)
        self.query_proj = PreciseProjection(dim, heads * phases)
        self.value_proj = nn.Linear(dim, dim, bias=False)
        self.gate_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim, bias=False)
        # Small weights in positional heads, so that content shifts their phases little at initialisation.
        scale = torch.tensor([1.0 if anchor == "content" else 0.1 for anchor in self.anchors])
        init_input_projections(self.key_proj, self.query_proj)
        for phase_proj in (self.key_proj, self.query_proj):
            nn.init.zeros_(phase_proj.bias)
            with torch.no_grad():
                phase_proj.weight.mul_(scale.repeat_interleave(phases)[:, None])

    @property
    def anchors(self) -> list[str]:
        """Origin of the source positions in each head."""
        return [_ANCHORS[head % len(_ANCHORS)] for head in range(self.heads)]

    def fuse(self, streams: Mapping[str, Stream], target: str, state: State | None, return_state: bool) -> FusionOutput:
        if state is None:
            state = self.absorb({name: stream for name, stream in streams.items() if name != target})
        x, position, memory = streams[target].x, state.position, state["memory"]
        z = self.target_norm(x)
        index = position[:, None] + torch.arange(x.shape[1], device=x.device)
        queries = self._features(self.query_proj, z, {"start": index, "end": index}) / self.config.phases
        with torch.autocast(x.device.type, enabled=False):
            read = (queries @ memory.to(queries.dtype)).transpose(1, 2).flatten(-2)
        y = x + self.out_proj(read.to(x.dtype) * F.silu(self.gate_proj(z)))
        if not return_state:
            return FusionOutput(y)
        return FusionOutput(y, self.new_state(position + lengths_of(streams[target]), {"memory": memory}))

    def absorb(self, sources: Mapping[str, Stream]) -> State:
        if len(sources) != 1:
            raise UnsupportedInputError(
                f"SourceProduct conditions a target on one source; got {', '.join(sources) or 'none'}. "
                "Fuse several into one first, with cross_modal."
            )
        (source,) = sources.values()
        lengths = lengths_of(source)[:, None]
        index = torch.arange(source.x.shape[1], device=source.x.device)
        real = (index < lengths)[..., None]
        z = self.source_norm(torch.where(real, source.x, 0.0))
        keys = self._features(self.key_proj, z, {"start": index, "end": lengths - 1 - index})
        keys = torch.where(real[:, None], keys, 0.0)
        values = self._split(self.value_proj(z)).to(keys.dtype)
        with torch.autocast(z.device.type, enabled=False):
            memory = keys.transpose(-1, -2) @ values
        return self.new_state(torch.zeros_like(lengths[:, 0]), {"memory": memory})

    def _features(self, projection: PreciseProjection, z: Tensor, positions: dict[str, Tensor]) -> Tensor:
        """Cosines and sines of the phases of z (B, N, D) at its positions: (B, H, N, 2E), in float32 at least."""
        shifts = {anchor: self._position_phases(position) for anchor, position in positions.items()}
        shifts["content"] = torch.zeros_like(shifts["start"])
        by_head = torch.stack(torch.broadcast_tensors(*(shifts[anchor] for anchor in self.anchors)), -3)
        phases: Tensor = projection(z)
        with torch.autocast(z.device.type, enabled=False):
            theta = self._split(phases) + by_head.to(phases.dtype)
            return torch.cat([theta.cos(), theta.sin()], -1)

    def _position_phases(self, position: Tensor) -> Tensor:
        """(..., N) positions -> (..., N, E) phases, reduced in float64, so they are exact at any position."""
        frequency = math.pi * (torch.arange(self.config.phases, device=position.device, dtype=torch.float64) + 0.5)
        return (position[..., None] * (frequency / self.config.phases)) % (2 * math.pi)

    def _split(self, z: Tensor) -> Tensor:
        return z.unflatten(-1, (self.heads, -1)).transpose(1, 2)
