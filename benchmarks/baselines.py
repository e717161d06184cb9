"""What the tables compare with: attention, a plain long convolution, parts that learn nothing, a source's mean.

Registered for a benchmark's process alone, as ``baselines/...``, through the hook third parties use.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from spectral_core import convolve, hookimpl
from spectral_core.config import OneOf, part
from spectral_core.plugins import HOST, Registrar
from spectral_layers import (
    Filter,
    FilterConfig,
    FilterContext,
    Fusion,
    FusionConfig,
    FusionOutput,
    LayerContext,
    Mixer,
    MixerConfig,
    MixerOutput,
    Rows,
    State,
    Stream,
)
from spectral_layers.fusion.base import lengths_of
from spectral_layers.initialisation import init_input_projections, init_output_projections
from spectral_layers.mixers.base import Direction
from spectral_layers.positions.base import Rotation, angles
from spectral_layers.registries import FILTERS
from spectral_layers.short_convolution import ShortConvolution

SPECTRAL_PLUGIN_API = 1
NAMESPACE = "baselines"
ROPE_BASE = 10_000.0


@lru_cache(maxsize=4)
def rotation(length: int, pairs: int, dtype: torch.dtype, device: torch.device) -> Rotation:
    """Of so many tokens: made once for all layers and calls, as our filters keep their kernels."""
    theta = angles(torch.arange(length, device=device)[None], pairs, ROPE_BASE).to(dtype)
    return Rotation(theta.cos(), theta.sin())


class AttentionConfig(MixerConfig):
    """Causal attention with rotary positions."""

    type: Literal["baselines/attention"] = "baselines/attention"
    head_dim: PositiveInt = 32
    """Channels per head."""
    short: bool = False
    """A short convolution on queries, keys and values."""


class Attention(Mixer[AttentionConfig]):
    """Causal softmax attention with rotary positions per head. O(L^2).

    With a short convolution, q, k and v pass through it before they are turned. It begins as the identity, the key's
    as a delay of one token, as the holographic mixer's does: a token is found by the one before it.

    Vaswani et al., "Attention is all you need", 2017; Su et al., "RoFormer", 2021.
    """

    streams = False

    def setup(self, config: AttentionConfig, context: LayerContext) -> None:
        super().setup(config, context)
        dim = context.hidden_dim
        self.heads = context.heads(config.head_dim)
        self.in_proj = nn.Linear(dim, 3 * dim, bias=False)
        self.out_proj = nn.Linear(dim, dim, bias=False)
        init_input_projections(self.in_proj)
        init_output_projections(self.out_proj)
        self.short = ShortConvolution(3 * dim) if config.short else None
        if self.short is not None:
            with torch.no_grad():
                taps = self.short.weight.mul_(0.1).view(3, dim, -1)
                taps[::2, :, -1] = 1.0  # query and value: this token
                taps[1, :, -2] = 1.0  # key: the token before

    def mix(self, x: Tensor, rows: Rows | None, state: State | None, return_state: bool) -> MixerOutput:
        projected = self.in_proj(x)
        if self.short is not None:
            projected = self.short(projected.transpose(1, 2)).transpose(1, 2)
        query, key, value = projected.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        turned = rotation(x.shape[1], query.shape[-1] // 2, x.dtype, x.device)
        y = F.scaled_dot_product_attention(turned(query), turned(key), value, is_causal=True)
        return MixerOutput(self.out_proj(y.transpose(1, 2).flatten(-2)))


class LongConvolutionConfig(MixerConfig):
    """A long convolution alone."""

    type: Literal["baselines/long_convolution"] = "baselines/long_convolution"
    filter: Annotated[FilterConfig, OneOf(FILTERS)] = part("implicit")
    """The long filter."""


class LongConvolution(Mixer[LongConvolutionConfig]):
    """y = W_o gelu(k * W_i x + skip W_i x): a long filter without gates or a short convolution. O(L log L)."""

    streams = False

    def setup(self, config: LongConvolutionConfig, context: LayerContext) -> None:
        super().setup(config, context)
        long_filter = config.filter.build(context.of_filter())
        dim = context.hidden_dim
        self.in_proj = nn.Linear(dim, dim, bias=False)
        self.out_proj = nn.Linear(dim, dim, bias=False)
        init_input_projections(self.in_proj)
        init_output_projections(self.out_proj)
        self.filter = long_filter
        self.skip = nn.Parameter(torch.ones(dim))

    def mix(self, x: Tensor, rows: Rows | None, state: State | None, return_state: bool) -> MixerOutput:
        u = self.in_proj(x).transpose(1, 2)
        y = convolve(u, self.filter.prepared(x.shape[1], self.fft), skip=self.skip, backend=self.fft)
        return MixerOutput(self.out_proj(F.gelu(y).transpose(1, 2)))


class NothingConfig(MixerConfig):
    """No mixer."""

    directions: ClassVar[frozenset[Direction]] = frozenset({"causal", "bidirectional"})

    type: Literal["baselines/nothing"] = "baselines/nothing"


class Nothing(Mixer[NothingConfig]):
    """y = 0: a block is left with its feed-forward, and each token with itself."""

    streams = False

    def mix(self, x: Tensor, rows: Rows | None, state: State | None, return_state: bool) -> MixerOutput:
        return MixerOutput(torch.zeros_like(x))


class FrozenConfig(FilterConfig):
    """A filter that stays as it was drawn; its parameters count, and do not learn."""

    type: Literal["baselines/frozen"] = "baselines/frozen"
    filter: Annotated[FilterConfig, OneOf(FILTERS)] = part("implicit")
    """The filter that is frozen."""

    def build(self, context: FilterContext) -> Filter:
        return self.filter.build(context).requires_grad_(False)


class AbsentConfig(FilterConfig):
    """No long filter."""

    type: Literal["baselines/absent"] = "baselines/absent"


class Absent(Filter[AbsentConfig]):
    """No long filter: all taps are zero, and what is left of a mixer is its skip connection."""

    support = 1

    def setup(self, config: AbsentConfig, context: FilterContext) -> None:
        self.zeros: Tensor
        self.register_buffer("zeros", torch.zeros(context.channels, 1), persistent=False)

    def kernel(self, length: int) -> Tensor:
        return self.zeros.expand(-1, length)


class SourceMeanConfig(FusionConfig):
    """The source's mean, added to every token of the target."""

    directions: ClassVar[frozenset[Direction]] = frozenset({"causal"})

    type: Literal["baselines/source_mean"] = "baselines/source_mean"


class SourceMean(Fusion[SourceMeanConfig]):
    """y[t] = x[t] + W mean_s norm(source[s]): what a decoder is conditioned on where nothing reads the source."""

    streams = True

    def setup(self, config: SourceMeanConfig, context: LayerContext) -> None:
        super().setup(config, context)
        self.norm = nn.LayerNorm(context.hidden_dim)
        self.proj = nn.Linear(context.hidden_dim, context.hidden_dim)

    def fuse(self, streams: Mapping[str, Stream], target: str, state: State | None, return_state: bool) -> FusionOutput:
        if state is None:
            state = self.absorb({name: stream for name, stream in streams.items() if name != target})
        given, mean = streams[target], state["mean"]
        y = given.x + self.proj(mean)[:, None]
        if not return_state:
            return FusionOutput(y)
        return FusionOutput(y, self.new_state(state.position + lengths_of(given), {"mean": mean}))

    def absorb(self, sources: Mapping[str, Stream]) -> State:
        (source,) = sources.values()
        lengths = lengths_of(source)[:, None]
        real = torch.arange(source.x.shape[1], device=source.x.device) < lengths
        total = torch.where(real[..., None], self.norm(source.x), 0.0).sum(1)
        return self.new_state(torch.zeros_like(lengths[:, 0]), {"mean": total / lengths.clamp(min=1)})


@hookimpl
def spectral_register_layers(register: Registrar) -> None:
    for kind, config in (
        ("mixer", AttentionConfig),
        ("mixer", LongConvolutionConfig),
        ("mixer", NothingConfig),
        ("filter", FrozenConfig),
        ("filter", AbsentConfig),
        ("fusion", SourceMeanConfig),
    ):
        name = config.model_fields["type"].default
        register(kind, name, config, summary=(config.__doc__ or "").splitlines()[0])


def register() -> None:
    """Make the baselines known to this process."""
    HOST.register(sys.modules[__name__], namespace=NAMESPACE)
