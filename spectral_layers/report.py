"""Losses and metrics that parts return, and their names in the modules that contain the parts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TypeVar

from torch import Tensor

from spectral_core.trees import tree

Reported = TypeVar("Reported", bound="Report")


@tree
@dataclass
class Report:
    """Base of the outputs of parts and models.

    losses: scalars to add to the training loss, already weighted. metrics: scalars to log. Both are keyword-only.
    """

    losses: dict[str, Tensor] = field(default_factory=dict, kw_only=True)
    metrics: dict[str, Tensor] = field(default_factory=dict, kw_only=True)

    def under(self, path: str) -> Report:
        """The losses and metrics alone, with ``path.`` in front of each name."""
        return Report(
            losses={f"{path}.{name}": loss for name, loss in self.losses.items()},
            metrics={f"{path}.{name}": metric for name, metric in self.metrics.items()},
        )

    def __add__(self: Reported, other: Report) -> Reported:
        """The output with the losses and metrics of both; ``other`` wins where both have a name."""
        return replace(self, losses={**self.losses, **other.losses}, metrics={**self.metrics, **other.metrics})
