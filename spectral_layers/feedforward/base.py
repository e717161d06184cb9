"""The contract of a feed-forward: it changes each token by itself."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from spectral_core.config import PartConfig
from spectral_core.trees import tree
from spectral_layers.context import LayerContext
from spectral_layers.part import C, Part
from spectral_layers.report import Report
from spectral_layers.rows import Rows


@tree
@dataclass
class FeedForwardOutput(Report):
    """y: (B, L, D)."""

    y: Tensor


class FeedForward(Part[LayerContext, C]):
    """Base of feed-forwards. No output may depend on another token; ``rows`` serves statistics, not outputs.

    divisible: whether tokens may be given in several calls, because nothing is reported of all of them together.
    """

    context_class = LayerContext
    must_return = (("forward", FeedForwardOutput),)
    divisible: ClassVar[bool] = False

    @abstractmethod
    def forward(self, x: Tensor, *, rows: Rows | None = None) -> FeedForwardOutput:
        """x: (B, L, D)."""


class FeedForwardConfig(PartConfig):
    """Names a feed-forward and its options."""

    must_return = (("build", FeedForward),)

    part_class: ClassVar[Any] = FeedForward

    def build(self, context: LayerContext) -> FeedForward:
        return self.part_class(context, self)
