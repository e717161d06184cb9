"""The contract of a fusion: it brings streams of different lengths and kinds together on one target."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from spectral_core.config import PartConfig
from spectral_layers.context import LayerContext
from spectral_layers.mixing.base import Direction
from spectral_layers.rows import Rows


@dataclass(frozen=True)
class Stream:
    """One input of a fusion. x: (B, L, D). kind: whether its tokens already know their future."""

    x: Tensor
    rows: Rows | None = None
    kind: Direction = "bidirectional"


@dataclass
class FusionOutput:
    """y: (B, L of the target, D). losses: already weighted. metrics: scalars to log."""

    y: Tensor
    losses: dict[str, Tensor] = field(default_factory=dict)
    metrics: dict[str, Tensor] = field(default_factory=dict)


class Fusion(nn.Module):
    """Base of fusions. A causal target stays causal: y[t] sees the target up to t, and all of the other streams."""

    @abstractmethod
    def forward(self, streams: Mapping[str, Stream], target: str) -> FusionOutput:
        """streams: any number, by name; target: the name of the one whose length and rows y has."""


class FusionConfig(PartConfig):
    """Names a fusion and its options; ``build(context)`` makes it."""

    def build(self, context: LayerContext) -> Fusion:
        raise NotImplementedError(f"{type(self).__name__} must define build(context)")
