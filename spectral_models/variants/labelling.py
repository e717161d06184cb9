"""What models share that put a label on each row: a head over pooled vectors, and its loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field, model_validator
from torch import Tensor, nn

from spectral_core.config import Width
from spectral_core.trees import tree
from spectral_layers import Report
from spectral_models.config import LabelSet, ModelConfig
from spectral_models.loss import StepLoss
from spectral_models.model import SpectralModel


@tree
@dataclass
class ClassifierOutput(Report):
    """logits: (B, num_labels). pooled: (B, D), what they were made of. losses, metrics: named by layer."""

    logits: Tensor
    pooled: Tensor


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

    def outputs(self) -> tuple[str, ...]:
        return ("logits",)

    def loss(
        self,
        inputs: Any,
        labels: Tensor,
        attention_mask: Any = None,
        *,
        label_smoothing: float = 0.0,
        step_count: Tensor | int | None = None,
        **options: Any,
    ) -> StepLoss:
        """How badly the labels were predicted, the auxiliary losses included.

        inputs, attention_mask, options: as forward takes them. labels: (B,) integers from 0 to num_labels - 1; IGNORE
        (-100) counts for nothing. label_smoothing: see :meth:`StepLoss.of_logits`; step_count: :meth:`StepLoss.of`.
        Raises UnsupportedInputError for labels that do not fit, and as forward.
        """
        output = self(inputs, attention_mask, **options)
        return StepLoss.of_logits(output.logits, labels, output.losses, output.metrics, step_count, label_smoothing)


class LabellerConfig(ModelConfig):
    """What the configs of models share that put a label on each row."""

    pools: ClassVar[bool] = True

    num_labels: Width = Field(default=2, ge=2)
    """Labels run from 0 to num_labels - 1."""
    labels: tuple[str, ...] | None = Field(default=None, max_length=1 << 16)
    """Their names, in order; training writes those of its data here."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Dropout on the pooled vector, in training."""

    @property
    def label_set(self) -> LabelSet:
        return LabelSet(self.num_labels, self.labels)

    @model_validator(mode="after")
    def _names_fit(self) -> LabellerConfig:
        if self.labels is not None and (len(self.labels), len(set(self.labels))) != (self.num_labels,) * 2:
            raise ValueError(f"labels must be num_labels = {self.num_labels} different names; got {self.labels}")
        return self
