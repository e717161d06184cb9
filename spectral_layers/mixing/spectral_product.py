"""Two streams of the input convolved with each other: the kernel is a projection of the input itself."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from spectral_core import convolve
from spectral_layers.context import LayerContext
from spectral_layers.mixing.base import Mixer, MixerConfig, MixerOutput
from spectral_layers.rows import Rows, append
from spectral_layers.short_convolution import ShortConvolution
from spectral_layers.state import State


class SpectralProduct(Mixer):
    """y = W_o (a * (v conv g + skip * v)) with g[s] = tanh(g'[s]) e^(-rate s) / 4.

    a, v and g' are short convolutions of projections of x. The product of the zero-padded spectra of two causal
    streams: y[t] = sum_s v[t-s] g[s] uses both up to t only, so it is strictly causal and data-dependent. g is
    indexed by absolute time, hence its decay: what the sequence began with is the kernel's head. O(L log L) per
    channel. Decoding: a direct sum over both stored streams, O(L) a token.

    Caracal (2026) convolves FFT(v) with FFT(g) likewise.
    """

    def __init__(self, context: LayerContext, *, timescales: tuple[float, float], short_taps: int) -> None:
        super().__init__(context)
        dim = context.hidden_dim
        self.in_proj = nn.Linear(dim, 3 * dim, bias=False)
        self.out_proj = nn.Linear(dim, dim, bias=False)
        nn.init.normal_(self.in_proj.weight, std=0.02)
        nn.init.normal_(self.out_proj.weight, std=0.02)
        self.short = ShortConvolution(3 * dim, taps=short_taps)
        self.skip = nn.Parameter(torch.ones(dim))
        shortest, longest = timescales
        self.log_decay = nn.Parameter(torch.linspace(math.log(1 / longest), math.log(1 / shortest), dim))

    def mix(self, x: Tensor, rows: Rows | None, state: State | None, return_state: bool) -> MixerOutput:
        projected = self.in_proj(x).transpose(1, 2)
        recent = None if state is None else state["recent"]
        post, value, raw = self.short(projected, recent).chunk(3, 1)
        length = x.shape[1]
        start = self.position(x, state)
        kernel = self._kernel(raw, start)
        if rows is not None:
            # Past a row's end both streams are silent, as the direct sum of a later call expects.
            real = rows.mask(length)[:, None]
            value, kernel = torch.where(real, value, 0.0), torch.where(real, kernel, 0.0)
        values, kernels = value, kernel
        if state is not None:
            values = append(state["values"].to(value.dtype), value, start)
            kernels = append(state["kernels"].to(kernel.dtype), kernel, start)
        if state is not None and length == 1:
            index = (start[:, None] - torch.arange(values.shape[-1], device=x.device)).clamp(min=0)
            turned = kernels.gather(-1, index[:, None].expand_as(kernels))
            heard = torch.arange(values.shape[-1], device=x.device) <= start[:, None]
            y = (values * turned * heard[:, None]).sum(-1, keepdim=True)
        else:
            y = convolve(values, kernels, backend=self.fft)
        if state is not None and length > 1:
            index = start[:, None] + torch.arange(length, device=x.device)
            y = y.gather(-1, index[:, None].expand(-1, y.shape[1], -1))
        y = (y + self.skip[:, None] * value) * post
        made = None
        if return_state:
            if rows is not None:
                longest = max([1, *(start + rows.lengths).tolist()])
                values, kernels = values[..., :longest], kernels[..., :longest]
            tensors = {
                "recent": self.short.remember(projected, rows, recent),
                "values": values,
                "kernels": kernels,
            }
            made = self.new_state(x, rows, state, tensors)
        return MixerOutput(self.out_proj(y.to(x.dtype).transpose(1, 2)), made)

    def _kernel(self, raw: Tensor, start: Tensor) -> Tensor:
        lag = start[:, None] + torch.arange(raw.shape[-1], device=raw.device)
        decay = torch.exp(-self.log_decay.exp()[:, None] * lag[:, None])
        return torch.tanh(raw) * decay / 4


class SpectralProductConfig(MixerConfig):
    """Convolves two streams of the input with each other: a data-dependent causal kernel."""

    type: Literal["spectral_product"] = "spectral_product"
    timescales: tuple[PositiveFloat, PositiveFloat] = (3.0, 1024.0)
    """Shortest and longest initial time constant of the kernel's decay over the channels, in tokens."""
    short_taps: PositiveInt = 4
    """Taps of the short convolution in front."""

    def build(self, context: LayerContext) -> SpectralProduct:
        return SpectralProduct(context, timescales=self.timescales, short_taps=self.short_taps)
