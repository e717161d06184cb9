"""A long convolution between two multiplicative gates: causal in decoders, two-sided in encoders."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from spectral_core import Mode, convolve
from spectral_core.config import OneOf, part
from spectral_layers.context import LayerContext
from spectral_layers.filters.base import FilterConfig
from spectral_layers.long_convolution import convolve_chunk, initial_tensors
from spectral_layers.mixers.base import Direction
from spectral_layers.mixers.gated import Convolved, GatedMixer, GatedMixerConfig
from spectral_layers.registries import FILTERS
from spectral_layers.rows import Rows
from spectral_layers.state import State


class GatedConvolutionConfig(GatedMixerConfig):
    """Gates around a long convolution: causal in decoders, two-sided in encoders."""

    directions: ClassVar[frozenset[Direction]] = frozenset({"causal", "bidirectional"})

    type: Literal["gated_convolution"] = "gated_convolution"
    filter: Annotated[FilterConfig, OneOf(FILTERS)] = part("resonant")
    """The long filter; encoders have one for each direction."""


class GatedConvolution(GatedMixer[GatedConvolutionConfig]):
    """y = W_o (a * (k conv (v * b) + skip * (v * b))), with a, b, v short convolutions of projections of x.

    Causal: all factors depend on the present and the past only. O(L log L) per channel by FFT. Decoding costs O(modes)
    a token with a recurrent filter, with any other O(log^2 L) a token and channel: exact semi-relaxed convolution over
    the stored inputs, or the last ``support`` of them if the filter has a finite support.

    Bidirectional: k is two-sided, k[t] = forward[t] for t > 0, reverse[-t] for t < 0 and their sum at 0, with a filter
    for each direction; the short convolutions are centered. Rows are zero-padded at both ends, so nothing wraps. One
    FFT convolution, O(L log L), of the same length as a causal one.

    Poli et al., "Hyena hierarchy: towards larger convolutional language models", 2023.
    """

    def setup(self, config: GatedConvolutionConfig, context: LayerContext) -> None:
        long_filter = config.filter.build(context.of_filter())
        reverse = None if context.causal else config.filter.build(context.of_filter())  # over later tokens
        super().setup(config, context)
        self.filter, self.reverse = long_filter, reverse
        self.skip = nn.Parameter(torch.ones(context.hidden_dim))
        self.length_limit = long_filter.length_limit

    def core(self, streams: Tensor, x: Tensor, rows: Rows | None, state: State | None, return_state: bool) -> Convolved:
        post, pre, value = streams.chunk(3, 1)
        if state is not None:
            u = value * pre
            y, memory = convolve_chunk(self.filter, u, rows, state, self.fft)
            return post * (y + self.skip[:, None] * u).to(u.dtype), memory, {}
        kernel = self.filter.prepared(x.shape[1], self.fft, self.reverse)
        mode: Mode = "causal" if self.causal else "centered"
        y = convolve(value, kernel, mode=mode, skip=self.skip, pre_gate=pre, post_gate=post, backend=self.fft)
        return y, initial_tensors(self.filter, value * pre, rows, self.fft) if return_state else {}, {}
