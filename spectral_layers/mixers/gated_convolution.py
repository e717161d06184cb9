"""A long convolution between two multiplicative gates: causal in a decoder, two-sided in an encoder."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from spectral_core import convolve
from spectral_core.config import OneOf, Width, part
from spectral_layers.context import LayerContext
from spectral_layers.filters.base import Filter, FilterConfig
from spectral_layers.initialisation import begin_reading, begin_writing
from spectral_layers.long_convolution import continued, remembered
from spectral_layers.mixers.base import Direction, Mixer, MixerConfig, MixerOutput
from spectral_layers.registries import FILTERS
from spectral_layers.rows import Rows
from spectral_layers.short_convolution import ShortConvolution, project
from spectral_layers.state import State


class GatedConvolutionConfig(MixerConfig):
    """Gates around a long convolution: causal in decoders, two-sided in encoders."""

    directions: ClassVar[frozenset[Direction]] = frozenset({"causal", "bidirectional"})

    type: Literal["gated_convolution"] = "gated_convolution"
    filter: Annotated[FilterConfig, OneOf(FILTERS)] = part("resonant")
    """The long filter; in an encoder one for each direction."""
    short_taps: Width = 4
    """Taps of the short convolution in front."""


class GatedConvolution(Mixer[GatedConvolutionConfig]):
    """y = W_o (a * (k conv (v * b) + skip * (v * b))), with a, b, v short convolutions of projections of x.

    Causal: all factors depend on the present and the past only. O(L log L) per channel by FFT. Decoding costs O(modes)
    a token with a recurrent filter; with any other O(log^2 L) a token and channel, by exact semi-relaxed convolution
    over the stored inputs, the last ``support`` ones if the filter has a ``support``.

    Bidirectional: k is two-sided, k[t] = forward[t] for t > 0, reverse[-t] for t < 0 and their sum at 0, with a filter
    for each direction; the short convolutions are centered. Rows are zero-padded at both ends, so nothing wraps. One
    FFT convolution, O(L log L), of the same length as a causal one.

    Poli et al., "Hyena hierarchy: towards larger convolutional language models", 2023.
    """

    def setup(self, config: GatedConvolutionConfig, context: LayerContext) -> None:
        super().setup(config, context)
        long_filter = config.filter.build(context.of_filter())
        reverse = None if context.causal else config.filter.build(context.of_filter())  # over later tokens
        dim = context.hidden_dim
        self.in_proj = nn.Linear(dim, 3 * dim, bias=False)
        self.out_proj = nn.Linear(dim, dim, bias=False)
        begin_reading(self.in_proj)
        begin_writing(self.out_proj)
        self.short = ShortConvolution(3 * dim, taps=config.short_taps, centered=not context.causal)
        self.filter = long_filter
        self.reverse = reverse
        self.skip = nn.Parameter(torch.ones(dim))
        self.length_limit = long_filter.length_limit

    def mix(self, x: Tensor, rows: Rows | None, state: State | None, return_state: bool) -> MixerOutput:
        if self.reverse is not None:
            return self._bidirectional(self.reverse, x, rows)
        projected, recent = project(self.in_proj, self.short, x, rows, state, return_state)
        post, pre, value = projected.chunk(3, 1)
        memory: dict[str, Tensor] = {}
        if state is None:
            kernel = self.filter.prepared(x.shape[1], self.fft)
            y = convolve(value, kernel, skip=self.skip, pre_gate=pre, post_gate=post, backend=self.fft)
            if return_state:
                memory = remembered(self.filter, value * pre, rows, self.fft)
        else:
            u = value * pre
            long, memory = continued(self.filter, u, rows, state, self.fft)
            y = post * (long + self.skip[:, None] * u).to(u.dtype)
        made = None
        if return_state:
            made = self.new_state(x, rows, state, {**recent, **memory})
        return MixerOutput(self.out_proj(y.transpose(1, 2)), made)

    def _bidirectional(self, reverse: Filter, x: Tensor, rows: Rows | None) -> MixerOutput:
        projected = self.in_proj(x).transpose(1, 2)
        if rows is not None:
            # Padding is zero for both convolutions, so that it reaches no token of the row.
            real = rows.mask(x.shape[1])[:, None]
            projected = torch.where(real, projected, 0.0)
        post, pre, value = self.short(projected).contiguous().chunk(3, 1)
        if rows is not None:
            value = torch.where(real, value, 0.0)
        kernel = self.filter.prepared_with(reverse, x.shape[1], self.fft)
        y = convolve(value, kernel, mode="centered", skip=self.skip, pre_gate=pre, post_gate=post, backend=self.fft)
        return MixerOutput(self.out_proj(y.transpose(1, 2)))
