"""The classifier: whatever an encoder reads, in; one logit for each label, out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from spectral_core import UnsupportedInputError
from spectral_core.axes import describe
from spectral_core.config import OneOf, part
from spectral_models.block import under
from spectral_models.config import ModelConfig
from spectral_models.model import SpectralModel
from spectral_models.registries import MODELS
from spectral_models.variants.encoding import EncoderConfig


@dataclass
class ClassifierOutput:
    """logits: (B, num_labels). pooled: (B, D), what they were made of.

    losses: scalars to add to the training loss, already weighted, named by layer. metrics: scalars to log.
    """

    logits: Tensor
    pooled: Tensor
    losses: dict[str, Tensor]
    metrics: dict[str, Tensor]


class Classifier(SpectralModel):
    """logits = W dropout(pooled) + b, pooled as the encoder's config says. Padding changes nothing."""

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__(config)
        self.config: ClassifierConfig
        with under("encoder"):
            self.encoder = config.encoder.build()
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.encoder.hidden_dim, config.num_labels)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, inputs: Tensor, attention_mask: Tensor | None = None, **options: Any) -> ClassifierOutput:
        """inputs, attention_mask, options: what the encoder takes: an ``audio_encoder`` also a ``sample_rate``."""
        encoded = self.encoder(inputs, attention_mask, **options)
        logits = self.head(self.dropout(encoded.pooled))
        return ClassifierOutput(logits, encoded.pooled, encoded.losses, encoded.metrics)

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

    @property
    def gradient_checkpointing(self) -> bool:
        """The encoder's: recompute blocks in the backward pass instead of storing what is inside them."""
        return self.encoder.gradient_checkpointing

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, value: bool) -> None:
        self.encoder.gradient_checkpointing = value


class ClassifierConfig(ModelConfig):
    """One label for each text, picture or sound, from any encoder's pooled embedding."""

    type: Literal["classifier"] = "classifier"
    num_labels: int = Field(default=2, ge=2)
    """Labels run from 0 to num_labels - 1."""
    encoder: Annotated[EncoderConfig, OneOf(MODELS)] = part("encoder")
    """The encoder, of text, pictures or sound; its ``pooling`` makes one vector of a row."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Dropout on the pooled vector, in training."""

    @field_validator("encoder")
    @classmethod
    def _is_an_encoder(cls, encoder: ModelConfig) -> ModelConfig:
        if not isinstance(encoder, EncoderConfig):
            fitting = [name for name, config in MODELS.configs().items() if issubclass(config, EncoderConfig)]
            raise ValueError(f"{encoder.type!r} is no encoder. Encoders: {', '.join(fitting)}")  # noqa: TRY004
        return encoder

    def build(self) -> Classifier:
        return Classifier(self)
