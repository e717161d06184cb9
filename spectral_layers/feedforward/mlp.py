"""Two linear layers with GELU."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from spectral_layers.context import LayerContext
from spectral_layers.feedforward.base import FeedForward, FeedForwardConfig, FeedForwardOutput
from spectral_layers.initialisation import init_input_projections, init_output_projections
from spectral_layers.rows import Rows


class MLPConfig(FeedForwardConfig):
    """Two linear layers with GELU."""

    type: Literal["mlp"] = "mlp"
    expansion: float = Field(default=4.0, gt=0, le=1024)
    """Inner width over hidden_dim."""


class MLP(FeedForward[MLPConfig]):
    """y = W_2 gelu(W_1 x). O(expansion D^2) a token."""

    divisible: ClassVar[bool] = True

    def setup(self, config: MLPConfig, context: LayerContext) -> None:
        hidden_dim, inner_dim = context.hidden_dim, max(1, round(config.expansion * context.hidden_dim))
        self.up = nn.Linear(hidden_dim, inner_dim, bias=False)
        self.down = nn.Linear(inner_dim, hidden_dim, bias=False)
        init_input_projections(self.up)
        init_output_projections(self.down)

    def forward(self, x: Tensor, *, rows: Rows | None = None) -> FeedForwardOutput:
        return FeedForwardOutput(self.down(F.gelu(self.up(x))))
