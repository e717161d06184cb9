"""Losses, metrics and hidden states that parts return, and their names in the modules that contain the parts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

import torch
from torch import Tensor

from spectral_core.trees import tree

Reported = TypeVar("Reported", bound="Report")


@tree
@dataclass
class Report:
    """Base of the outputs of parts and models.

    losses: scalars to add to the training loss, already weighted. metrics: scalars to log. hidden_states: of each stack
    of N blocks, "0" to "N - 1" for what each block reads and "N" for the final norm's output, (B, L, D); empty except
    in :func:`with_hidden_states`. All three are keyword-only.
    """

    losses: dict[str, Tensor] = field(default_factory=dict, kw_only=True)
    metrics: dict[str, Tensor] = field(default_factory=dict, kw_only=True)
    hidden_states: dict[str, Tensor] = field(default_factory=dict, kw_only=True)

    def under(self, path: str) -> Report:
        """The losses and metrics alone, with ``path.`` in front of each name."""
        return Report(
            losses={f"{path}.{name}": loss for name, loss in self.losses.items()},
            metrics={f"{path}.{name}": metric for name, metric in self.metrics.items()},
            hidden_states={f"{path}.{name}": x for name, x in self.hidden_states.items()},
        )

    def __add__(self: Reported, other: Report) -> Reported:
        """The output with the reports of both; ``other`` wins where both have a name."""
        return replace(
            self,
            losses={**self.losses, **other.losses},
            metrics={**self.metrics, **other.metrics},
            hidden_states={**self.hidden_states, **other.hidden_states},
        )


Layers = Literal["none", "last", "all"]
_layers: ContextVar[Layers] = ContextVar("layers", default="none")


@contextmanager
def with_hidden_states(layers: Layers) -> Iterator[None]:
    """A scope in which models report the hidden states of all layers, or of the last. Compiled ones report none."""
    token = _layers.set(layers)
    try:
        yield
    finally:
        _layers.reset(token)


def reported_layers() -> Layers:
    """Whose hidden states this call reports: see :func:`with_hidden_states`."""
    return "none" if torch.compiler.is_compiling() else _layers.get()
