"""What models share that put a label on each row: a head over pooled vectors, and the loss of its logits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from spectral_core import UnsupportedInputError
from spectral_core.axes import describe
from spectral_models.config import ModelConfig
from spectral_models.model import SpectralModel


@dataclass
class ClassifierOutput:
    """logits: (B, num_labels). pooled: (B, D), what they were made of.

    losses: scalars to add to the training loss, already weighted, named by layer. metrics: scalars to log.
    """

    logits: Tensor
    pooled: Tensor
    losses: dict[str, Tensor]
    metrics: dict[str, Tensor]


class Labeller(SpectralModel):
    """Base of models with logits = W dropout(pooled) + b. A variant makes the head, and gives it pooled vectors."""

    dropout: nn.Dropout
    head: nn.Linear

    def __init__(self, config: LabellerConfig) -> None:
        super().__init__(config)
        self.config: LabellerConfig

    def make_head(self, width: int) -> None:
        """The head over pooled vectors of that width; a variant's last step, behind what makes these."""
        self.dropout = nn.Dropout(self.config.dropout)
        self.head = nn.Linear(width, self.config.num_labels)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def logits(self, pooled: Tensor) -> Tensor:
        """(B, D) -> (B, num_labels)."""
        logits: Tensor = self.head(self.dropout(pooled))
        return logits

    def loss(self, output: ClassifierOutput, labels: Tensor) -> Tensor:
        """Mean cross-entropy of labels (B,), integers from 0 to num_labels - 1, plus the auxiliary losses.

        Raises UnsupportedInputError for labels of another shape or kind, or out of range.
        """
        count = self.config.num_labels
        integers = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
        if labels.shape != output.logits.shape[:1] or not integers:
            raise UnsupportedInputError(
                f"labels are one integer for each of {output.logits.shape[0]} rows; got {describe(labels)}."
            )
        # Reading the extremes back from an accelerator would stall every step; there the loss asserts.
        if labels.device.type == "cpu" and labels.numel():
            low, high = int(labels.min()), int(labels.max())
            if low < 0 or high >= count:
                raise UnsupportedInputError(
                    f"labels run from 0 to {count - 1} (num_labels {count}); got {low} to {high}. Number them from 0, "
                    "or build the model with more num_labels."
                )
        loss = F.cross_entropy(output.logits.float(), labels.long())
        return torch.stack([loss, *output.losses.values()]).sum()


class LabellerConfig(ModelConfig):
    """What the configs of models share that put a label on each row."""

    num_labels: int = Field(default=2, ge=2)
    """Labels run from 0 to num_labels - 1."""
    labels: tuple[str, ...] | None = None
    """Their names, in order; training writes those of its data here."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Dropout on the pooled vector, in training."""

    @model_validator(mode="after")
    def _names_fit(self) -> LabellerConfig:
        if self.labels is not None and (len(self.labels), len(set(self.labels))) != (self.num_labels,) * 2:
            raise ValueError(f"labels must be num_labels = {self.num_labels} different names; got {self.labels}")
        return self
