"""Convolution of two projections of the input with each other: the kernel is a function of the input."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from spectral_core import convolve
from spectral_core.config import Scale
from spectral_layers.context import LayerContext
from spectral_layers.mixers.gated import Convolved, GatedMixer, GatedMixerConfig
from spectral_layers.online import OnlineProduct
from spectral_layers.rows import Rows
from spectral_layers.state import State


class SpectralProductConfig(GatedMixerConfig):
    """Convolves two streams of the input with each other: a data-dependent causal kernel."""

    type: Literal["spectral_product"] = "spectral_product"
    timescales: tuple[Scale, Scale] = (3.0, 1024.0)
    """Shortest and longest initial time constant of the kernel's decay, in tokens; spread over the channels."""


class SpectralProduct(GatedMixer[SpectralProductConfig]):
    """y = W_o (a * (v conv g + skip * v)) with g[s] = tanh(g'[s]) e^(-rate s) / 4.

    a, v and g' are short convolutions of projections of x. The kernel g is a function of the input, indexed by absolute
    time: tap s comes from token s, and decays with s. Causal: y[t] = sum_s v[t-s] g[s] uses both streams up to t only.
    Computed as the product of zero-padded spectra, O(L log L) per channel. Decoding: exact fully relaxed convolution,
    O(log^2 L) a token and channel over both stored streams.

    Caracal (2026) also multiplies the spectra of two projections.
    """

    def setup(self, config: SpectralProductConfig, context: LayerContext) -> None:
        super().setup(config, context)
        dim = context.hidden_dim
        self.skip = nn.Parameter(torch.ones(dim))
        shortest, longest = config.timescales
        self.log_decay = nn.Parameter(torch.linspace(math.log(1 / longest), math.log(1 / shortest), dim))

    def core(self, streams: Tensor, x: Tensor, rows: Rows | None, state: State | None, return_state: bool) -> Convolved:
        post, value, raw = streams.chunk(3, 1)
        start = self.position(x, state)
        kernel = self._kernel(raw, start)
        if rows is not None:
            # OnlineProduct requires zeros at padding.
            real = rows.mask(x.shape[1])[:, None]
            value, kernel = torch.where(real, value, 0.0), torch.where(real, kernel, 0.0)
        memory: dict[str, Tensor] = {}
        if state is None:
            y = convolve(value, kernel, backend=self.fft)
            if return_state:
                memory = OnlineProduct.after(self.fft, torch.cat([value, kernel], 1), rows).tensors()
        else:
            online = OnlineProduct(self.fft, state["heads"], state["inputs"], state["pending"])
            y = online.extend(torch.cat([value, kernel], 1), start, rows)
            memory = online.tensors()
        return ((y + self.skip[:, None] * value) * post).to(x.dtype), memory, {}

    @torch.no_grad()
    def time_constants(self) -> Tensor:
        """(D,) tokens in which each channel's kernel decays to 1/e, for inspection."""
        return 1 / self.log_decay.double().exp()

    def _kernel(self, raw: Tensor, start: Tensor) -> Tensor:
        lag = start[:, None] + torch.arange(raw.shape[-1], device=raw.device)
        decay = torch.exp(-self.log_decay.exp()[:, None] * lag[:, None])
        return torch.tanh(raw) * decay / 4
