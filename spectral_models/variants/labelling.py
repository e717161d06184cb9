"""The bases of models that label rows or tokens: a linear head over vectors, and its loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field, model_validator
from torch import Tensor, nn

from spectral_core.config import Width, problem
from spectral_core.trees import tree
from spectral_layers import Report
from spectral_models.block import under
from spectral_models.config import ModelConfig
from spectral_models.inputs import InputSpec
from spectral_models.labels import LabelSet, Problem
from spectral_models.loss import StepLoss
from spectral_models.model import SpectralModel
from spectral_models.variants.encoding import EncoderConfig


@tree
@dataclass
class ClassifierOutput(Report):
    """logits: (B, num_labels) of rows, or (B, L, num_labels) of tokens. pooled: (B, D). losses, metrics: by layer."""

    logits: Tensor
    pooled: Tensor


class Labeller(SpectralModel):
    """Base of models with logits = W dropout(x) + b. A variant calls :meth:`make_head`, and computes x."""

    config: HeadConfig
    dropout: nn.Dropout
    head: nn.Linear

    def make_head(self, width: int) -> None:
        """Add the head over vectors of that width. Call it last, so that other modules are initialised before it."""
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
        """The loss of the label set's ``problem``, plus the auxiliary losses.

        inputs, attention_mask, options: arguments of forward. labels, for cross-entropy: (B,) integers from 0 to
        num_labels - 1, or (B, L) of tokens, where IGNORE (-100) is left out; for binary cross-entropy: (B, num_labels)
        floats from 0 to 1; for squared error: (B, num_labels) floats, or (B,) if num_labels is 1. label_smoothing: see
        :meth:`StepLoss.of_labels`. step_count: see :meth:`StepLoss.of`. Raises UnsupportedInputError for labels that
        do not fit, and as forward does.
        """
        output = self(inputs, attention_mask, **options)
        problem, report = self.config.label_set.problem, (output.losses, output.metrics)
        return StepLoss.of_labels(problem, output.logits, labels, *report, step_count, label_smoothing) + output


class EncoderLabeller(Labeller):
    """Base of labellers over one encoder, the config's ``encoder``."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        encoder: EncoderConfig = config.encoder
        with under("encoder"):
            self.encoder = encoder.build()
        self.make_head(encoder.hidden_dim)

    def input_specs(self) -> tuple[InputSpec, ...]:
        return self.encoder.input_specs()


class HeadConfig(ModelConfig):
    """Base of the configs of models with labels."""

    pools: ClassVar[bool] = True

    num_labels: Width = 2
    """Number of labels, or of predicted numbers in regression."""
    labels: tuple[str, ...] | None = Field(default=None, max_length=1 << 16)
    """Names of the labels, in order; training sets them to those of its data."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Dropout in front of the head, in training."""

    @property
    def label_set(self) -> LabelSet:
        return LabelSet(self.num_labels, self.labels)

    @model_validator(mode="after")
    def _names_fit(self) -> HeadConfig:
        if self.num_labels == 1 and self.label_set.problem == "single_label_classification":
            raise problem(
                ("num_labels",), "classification needs 2 labels or more; for one number use problem_type: regression."
            )
        if self.labels is not None and (len(self.labels), len(set(self.labels))) != (self.num_labels,) * 2:
            raise ValueError(f"labels must be num_labels = {self.num_labels} different names; got {self.labels}")
        return self


class LabellerConfig(HeadConfig):
    """Base of the configs of models that label rows."""

    problem_type: Problem = "single_label_classification"
    """What logits are, in Hugging Face's terms: scores of exclusive labels (softmax), of independent labels (sigmoid),
    or numbers."""

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
