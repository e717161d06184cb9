"""Base of mixers with a gated long convolution: projections and the short convolution around it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn

from spectral_core.config import Width
from spectral_layers.context import LayerContext
from spectral_layers.initialisation import init_input_projections, init_output_projections
from spectral_layers.mixers.base import Mixer, MixerConfig, MixerOutput
from spectral_layers.rows import Rows
from spectral_layers.segments import joined, segments
from spectral_layers.short_convolution import ShortConvolution
from spectral_layers.state import State

Convolved = tuple[Tensor, dict[str, Tensor], dict[str, State]]


class GatedMixerConfig(MixerConfig):
    """Options that all gated mixers share."""

    short_taps: Width = 4
    """Taps of the short convolution after the input projection."""


C = TypeVar("C", bound=GatedMixerConfig)


class GatedMixer(Mixer[C]):
    """y = W_o core(a, b, v), with a, b, v short convolutions of projections of x.

    The projections mix channels, the core mixes along time within each channel. A subclass defines :meth:`core`. The
    state holds the last inputs of the short convolution, "recent", and the core's tensors.
    """

    def setup(self, config: C, context: LayerContext) -> None:
        super().setup(config, context)
        dim = context.hidden_dim
        self.in_proj = nn.Linear(dim, 3 * dim, bias=False)
        self.out_proj = nn.Linear(dim, dim, bias=False)
        init_input_projections(self.in_proj)
        init_output_projections(self.out_proj)
        self.short = ShortConvolution(3 * dim, taps=config.short_taps, centered=not context.causal)

    @abstractmethod
    def core(self, streams: Tensor, x: Tensor, rows: Rows | None, state: State | None, return_state: bool) -> Convolved:
        """Mixes a, b and v, stacked as ``streams`` (B, 3 D, L), along time: y (B, D, L).

        Also returns the tensors of the next state and the states of parts inside; both are ignored without
        ``return_state``. x: the mixer's input (B, L, D). Padding of streams is arbitrary if causal, otherwise zero.
        """

    def mix(self, x: Tensor, rows: Rows | None, state: State | None, return_state: bool) -> MixerOutput:
        if self.causal:
            streams, recent = self._causal_streams(x, rows, state, return_state)
        else:
            streams, recent = self._centered_streams(x, rows), {}
        y, tensors, parts = self.core(streams, x, rows, state, return_state)
        next_state = self.new_state(x, rows, state, {**recent, **tensors}, parts) if return_state else None
        return MixerOutput(self.out_proj(y.transpose(1, 2)), next_state)

    def _centered_streams(self, x: Tensor, rows: Rows | None) -> Tensor:
        projected = self.in_proj(x).transpose(1, 2)
        if rows is None:
            return self.short(projected).contiguous()
        real = rows.mask(x.shape[1])[:, None]
        return torch.where(real, self.short(torch.where(real, projected, 0.0)), 0.0).contiguous()

    def _causal_streams(
        self, x: Tensor, rows: Rows | None, state: State | None, return_state: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The streams, contiguous along time, and with ``return_state`` the last inputs of the short convolution."""
        recent = None if state is None else state["recent"]

        def convolved() -> Iterator[Tensor]:
            nonlocal recent
            for here in segments(x):
                projected = self.in_proj(x[:, here]).transpose(1, 2)
                yield self.short(projected, recent)
                if return_state or here.stop < x.shape[1]:
                    recent = self.short.next_past(projected, None if rows is None else rows.within(here), recent)

        streams = joined(convolved(), x.shape[1], dim=2).contiguous()
        return streams, {"recent": recent} if return_state and recent is not None else {}
