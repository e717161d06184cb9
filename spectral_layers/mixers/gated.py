"""The shell of the mixers that gate a long convolution: everything around it that is done token by token."""

from __future__ import annotations

from abc import abstractmethod
from typing import TypeVar

import torch
from torch import Tensor, nn

from spectral_core.config import Width
from spectral_layers.context import LayerContext
from spectral_layers.initialisation import init_input_projections, init_output_projections
from spectral_layers.mixers.base import Mixer, MixerConfig, MixerOutput
from spectral_layers.rows import Rows
from spectral_layers.short_convolution import ShortConvolution, project
from spectral_layers.state import State

Cored = tuple[Tensor, dict[str, Tensor], dict[str, State]]


class GatedMixerConfig(MixerConfig):
    """Options of the shell."""

    short_taps: Width = 4
    """Taps of the short convolution in front."""


C = TypeVar("C", bound=GatedMixerConfig)


class GatedMixer(Mixer[C]):
    """y = W_o core(a, b, v), with a, b, v short convolutions of projections of x.

    Around the core all channels are mixed and tokens see few others; in the core no channel sees another, and tokens
    see all of their past, or of their row. A subclass writes :meth:`core`. The state has the last inputs of the short
    convolution, "recent", and what the core keeps.
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
    def core(self, streams: Tensor, x: Tensor, rows: Rows | None, state: State | None, return_state: bool) -> Cored:
        """The mixing along time of a, b and v, which ``streams`` (B, 3 D, L) holds: y (B, D, L).

        Also the tensors and the states of parts inside that continue it; they are read only if ``return_state``.
        x: the mixer's input (B, L, D). Padding of the streams is arbitrary in causal mixers, and zero in others.
        """

    def mix(self, x: Tensor, rows: Rows | None, state: State | None, return_state: bool) -> MixerOutput:
        streams, recent = self._prepared(x, rows, state, return_state)
        y, tensors, parts = self.core(streams, x, rows, state, return_state)
        made = None
        if return_state:
            made = self.new_state(x, rows, state, {**recent, **tensors})
            made.parts.update(parts)
        return MixerOutput(self.out_proj(y.transpose(1, 2)), made)

    def _prepared(
        self, x: Tensor, rows: Rows | None, state: State | None, return_state: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """a, b and v as one (B, 3 D, L), contiguous along time, and the tensors that continue them."""
        if self.causal:
            return project(self.in_proj, self.short, x, rows, state, return_state)
        projected = self.in_proj(x).transpose(1, 2)
        if rows is None:
            return self.short(projected).contiguous(), {}
        real = rows.mask(x.shape[1])[:, None]
        return torch.where(real, self.short(torch.where(real, projected, 0.0)), 0.0).contiguous(), {}
