"""What models share that put a label on each row or each token: a linear head over vectors, and its loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field, model_validator
from torch import Tensor, nn

from spectral_core.config import Width, problem
from spectral_core.trees import tree
from spectral_layers import Report
from spectral_models.config import ModelConfig
from spectral_models.labels import LabelSet, Problem
from spectral_models.loss import StepLoss
from spectral_models.model import SpectralModel


@tree
@dataclass
class ClassifierOutput(Report):
    """logits: (B, num_labels) of rows, or (B, L, num_labels) of tokens. pooled: (B, D). losses, metrics: by layer."""

    logits: Tensor
    pooled: Tensor


class Labeller(SpectralModel):
    """Base of models with logits = W dropout(x) + b. A variant makes the head, and gives it the vectors x."""

    dropout: nn.Dropout
    head: nn.Linear

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        self.config: HeadConfig

    def make_head(self, width: int) -> None:
        """The head over vectors of that width; call it last, after the modules whose output it reads are built."""
        self.dropout = nn.Dropout(self.config.dropout)
        self.head = nn.Linear(width, self.config.num_labels)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def logits(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., num_labels)."""
        logits: Tensor = self.head(self.dropout(x))
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
        """The loss of the ``problem`` in the config's label set, and the auxiliary losses.

        inputs, attention_mask, options: as forward takes them. labels: (B,) integers from 0 to num_labels - 1, or
        (B, L) of tokens, where IGNORE (-100) counts for nothing, for cross-entropy; (B, num_labels) numbers from 0 to
        1, of labels that are each right or not, for binary cross-entropy; (B, num_labels) or, of one, (B,) numbers for
        squared errors.
        label_smoothing: see :meth:`StepLoss.of_labels`; step_count: :meth:`StepLoss.of`. Raises UnsupportedInputError
        for labels that do not fit, and as forward.
        """
        output = self(inputs, attention_mask, **options)
        problem, extra = self.config.label_set.problem, (output.losses, output.metrics)
        return StepLoss.of_labels(problem, output.logits, labels, *extra, step_count, label_smoothing) + output


class HeadConfig(ModelConfig):
    """What the configs of all models with labels share."""

    pools: ClassVar[bool] = True

    num_labels: Width = 2
    """Labels run from 0 to num_labels - 1; in regression, how many numbers there are."""
    labels: tuple[str, ...] | None = Field(default=None, max_length=1 << 16)
    """Their names, in order; training writes those of its data here."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Dropout on the vectors that the head reads, in training."""

    @property
    def label_set(self) -> LabelSet:
        return LabelSet(self.num_labels, self.labels)

    @model_validator(mode="after")
    def _names_fit(self) -> HeadConfig:
        if self.num_labels == 1 and self.label_set.problem == "single_label_classification":
            raise problem(
                ("num_labels",), "one of 2 labels or more is chosen; with problem_type: regression 1 is a number."
            )
        if self.labels is not None and (len(self.labels), len(set(self.labels))) != (self.num_labels,) * 2:
            raise ValueError(f"labels must be num_labels = {self.num_labels} different names; got {self.labels}")
        return self


class LabellerConfig(HeadConfig):
    """What the configs of models share that put a label on each row."""

    problem_type: Problem = "single_label_classification"
    """What logits mean: scores of labels, of which one is right (softmax); of labels, each right or not (sigmoid); or
    numbers. In Hugging Face's words."""

    @property
    def tasks(self) -> tuple[str, ...]:
        return ("regression",) if self.problem_type == "regression" else ("classification", "regression")

    def for_task(self, task: str) -> LabellerConfig:
        if task != "regression" or self.problem_type == "regression":
            return self
        size = {} if "num_labels" in self.model_fields_set else {"num_labels": 1}
        return self.model_validate({**self.model_dump(), "problem_type": "regression", **size})

    @property
    def label_set(self) -> LabelSet:
        return LabelSet(self.num_labels, self.labels, self.problem_type)
