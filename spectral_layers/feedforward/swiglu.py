"""Gated linear unit with SiLU."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from spectral_layers.context import LayerContext
from spectral_layers.feedforward.base import FeedForward, FeedForwardConfig, FeedForwardOutput
from spectral_layers.initialisation import init_input_projections, init_output_projections
from spectral_layers.rows import Rows


class SwiGLUConfig(FeedForwardConfig):
    """Gated linear unit with SiLU."""

    type: Literal["swiglu"] = "swiglu"
    expansion: float = Field(default=8 / 3, gt=0, le=1024)
    """Inner width over hidden_dim; 8/3 has the parameters of an mlp with 4."""


class SwiGLU(FeedForward[SwiGLUConfig]):
    """y = W_2 (silu(W_g x) * W_1 x). O(expansion D^2) a token. Shazeer, "GLU variants improve transformer", 2020."""

    divisible: ClassVar[bool] = True

    def setup(self, config: SwiGLUConfig, context: LayerContext) -> None:
        hidden_dim, inner_dim = context.hidden_dim, max(1, round(config.expansion * context.hidden_dim))
        self.up = nn.Linear(hidden_dim, 2 * inner_dim, bias=False)
        self.down = nn.Linear(inner_dim, hidden_dim, bias=False)
        init_input_projections(self.up)
        init_output_projections(self.down)

    def forward(self, x: Tensor, *, rows: Rows | None = None) -> FeedForwardOutput:
        gate, value = self.up(x).chunk(2, -1)
        return FeedForwardOutput(self.down(F.silu(gate) * value))
