"""Long convolutions at several resolutions, fused by a gate."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from spectral_core import FFTBackend, convolve
from spectral_core.config import OneOf, Width, part
from spectral_kernels.tracing import varies
from spectral_layers.context import LayerContext
from spectral_layers.entry import Entered, entry
from spectral_layers.filters.base import Filter, FilterConfig
from spectral_layers.long_convolution import convolve_chunk
from spectral_layers.mixers.gated import Convolved, GatedMixer, GatedMixerConfig
from spectral_layers.registries import FILTERS
from spectral_layers.rows import Rows, span
from spectral_layers.state import State


class MultiscaleConfig(GatedMixerConfig):
    """Long convolutions of block sums at several resolutions, fused per token and channel."""

    type: Literal["multiscale"] = "multiscale"
    filter: Annotated[FilterConfig, OneOf(FILTERS)] = part("resonant")
    """The long filter, one for each scale; its lags count blocks."""
    scales: tuple[Width, ...] = Field(default=(1, 4, 16), min_length=2, max_length=16)
    """Tokens per block, from the finest resolution to the coarsest."""

    @property
    def block(self) -> int:
        """Tokens of the longest block: the mixer depends on the position modulo this."""
        return self.scales[-1]

    @model_validator(mode="after")
    def _ordered(self) -> MultiscaleConfig:
        if any(fine >= coarse for fine, coarse in pairwise(self.scales)):
            raise ValueError(f"scales go from the finest to the coarsest, none twice; got {self.scales}")
        return self


class Multiscale(GatedMixer[MultiscaleConfig]):
    """y = W_o (a * (sum_s g_s * long_s(u) + skip * u)) with u = v * b, and a, b, v short convolutions of W_i x.

    long_s cuts each row into blocks of s tokens, divides the sum of each block by sqrt(s) (which keeps the variance of
    white input), convolves the sequence of blocks with a filter of this scale, and holds each result from the last
    token of its block until the next block is complete. g_s[d, t] = sqrt(softmax over s of (W_g x)[s, t] + c[s, d])
    weighs resolutions per token, with a bias per channel and a total energy of one.

    Causal: a block has no effect before its last token. A filter at scale s reaches s times as far for 1/s of the work:
    O(sum of L/s log(L/s)) per channel. Decoding: one step of the filter per block. The state of a scale holds the
    filter's memory, the sum of the incomplete block and the last result.
    """

    def setup(self, config: MultiscaleConfig, context: LayerContext) -> None:
        filters = {scale: config.filter.build(context.of_filter(scale)) for scale in config.scales}
        super().setup(config, context)
        dim = context.hidden_dim
        self.scales = nn.ModuleDict({str(scale): _Scale(scale, inner, context.fft) for scale, inner in filters.items()})
        self.choice = nn.Linear(dim, len(filters), bias=False)
        nn.init.normal_(self.choice.weight, std=0.02)
        self.leaning = nn.Parameter(torch.zeros(len(filters), dim))
        self.skip = nn.Parameter(torch.ones(dim))
        # A filter limited to n blocks suffices until block n + 1 is complete.
        limits = [(inner.length_limit + 1) * scale - 1 for scale, inner in filters.items() if inner.length_limit]
        self.length_limit = min(limits, default=None)

    @property
    def owner(self) -> str:
        return f"{type(self).__name__} (scales {', '.join(self.scales)})"

    def core(self, streams: Tensor, x: Tensor, rows: Rows | None, state: State | None, return_state: bool) -> Convolved:
        post, pre, value = streams.chunk(3, 1)
        u = value * pre
        logits = self.choice(x).transpose(1, 2)[:, :, None] + self.leaning[:, :, None]
        shares = torch.exp(0.5 * F.log_softmax(logits, 1)).to(u.dtype)
        y = self.skip[:, None] * u
        parts: dict[str, State] = {}
        for share, (name, scale) in zip(shares.unbind(1), self.scales.items(), strict=True):
            assert isinstance(scale, _Scale)
            if return_state or state is not None:
                past = None if state is None else state.part(name)
                long, parts[name] = scale.stream(u, rows, self.position(x, state), past)
            else:
                long = scale(u)
            y = y + share * long
        return (y * post).to(x.dtype), {}, parts


class _Scale(Entered):
    """Convolves sums of blocks of ``scale`` tokens; holds each result until the next block is complete."""

    def __init__(self, scale: int, long_filter: Filter, fft: FFTBackend) -> None:
        super().__init__()
        self.scale = scale
        self.filter = long_filter
        self.fft = fft

    def forward(self, u: Tensor) -> Tensor:
        """A whole sequence: (B, D, L) -> (B, D, L)."""
        length = u.shape[-1]
        # An incomplete block affects no output. A graph for varying lengths counts it nevertheless, so that the number
        # of blocks crosses a power of two at the same lengths as the sequence.
        blocks = -(-length // self.scale) if varies(length) else max(1, length // self.scale)
        sums = self._sums(F.pad(u, (0, blocks * self.scale - length)))
        y = convolve(sums, self.filter.prepared(blocks, self.fft), backend=self.fft)
        held = y[..., None].expand(*y.shape, self.scale).flatten(-2)
        return F.pad(held, (self.scale - 1, 0))[..., :length]

    @entry
    def stream(self, u: Tensor, rows: Rows | None, position: Tensor, state: State | None) -> tuple[Tensor, State]:
        """The next chunk of a sequence after ``position`` (B,) tokens of each row, and the state after it.

        The state's position counts blocks. Its tensors are those of the filter, and (B, D, 1) each, "begun", the sum of
        the incomplete block, and "held", the last result.
        """
        length = u.shape[-1]
        if rows is not None:
            u = torch.where(rows.mask(length)[:, None], u, 0.0)
        offset = position % self.scale
        complete = (offset + (length if rows is None else rows.lengths)) // self.scale
        counts = set(complete.tolist())
        blocks = max(counts, default=0)
        # The last block is the incomplete one.
        sums = self._sums(span(u, -offset, (blocks + 1) * self.scale))
        held = torch.zeros_like(sums[..., :1])
        if state is not None:
            sums = sums + F.pad(state["begun"].to(u.dtype), (0, blocks))
            held = state["held"].to(u.dtype)
        if state is not None and not blocks:
            results, memory = held, state.tensors
        else:
            # Without lengths the filter is faster; rows that all advance by the same number of blocks need none.
            uneven = None if blocks and len(counts) == 1 else Rows(complete)
            convolved, memory = convolve_chunk(self.filter, sums[..., : max(1, blocks)], uneven, state, self.fft)
            results = torch.cat([held, convolved.to(u.dtype)], -1)
        at = (offset[:, None] + torch.arange(1, length + 1, device=u.device)) // self.scale
        y = _pick(results, at.clamp(max=blocks))
        last = complete[:, None]
        tensors = {**memory, "begun": _pick(sums, last), "held": _pick(results, last)}
        kernels = None if state is None else state.kernels
        return y, State("scale", position // self.scale + complete, tensors, kernels=kernels)

    def _sums(self, u: Tensor) -> Tensor:
        """Sums of the blocks of u (B, D, n scale), over sqrt(scale): (B, D, n)."""
        return u.unflatten(-1, (-1, self.scale)).sum(-1) / math.sqrt(self.scale)


def _pick(x: Tensor, index: Tensor) -> Tensor:
    """The columns of x (B, D, T) at ``index`` (B, N): (B, D, N)."""
    return x.gather(-1, index[:, None].expand(-1, x.shape[1], -1))
