"""The contract of a feed-forward: a function of each token alone."""

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
    """Base of feed-forwards. No output may depend on another token; ``rows`` is for losses and metrics only.

    divisible: whether a sequence may be split over several calls: true if losses and metrics need no whole sequence.
    """

    context_class = LayerContext
    must_return = (("forward", FeedForwardOutput),)
    divisible: ClassVar[bool] = False

    @abstractmethod
    def forward(self, x: Tensor, *, rows: Rows | None = None) -> FeedForwardOutput:
        """x: (B, L, D)."""


class FeedForwardConfig(PartConfig):
    """Base of the configs of feed-forwards."""

    must_return = (("build", FeedForward),)

    part_class: ClassVar[Any] = FeedForward

    def build(self, context: LayerContext) -> FeedForward:
        return self.part_class(context, self)
