"""Classifiers of texts, images and audio, under Hugging Face's names for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers.models.auto import modeling_auto
from transformers.utils import ModelOutput

from spectral_core import ConfigError
from spectral_models.integrations.huggingface.pretrained import SpectralPreTrainedModel, refuse
from spectral_models.loss import StepLoss


@dataclass
class SpectralClassifierOutput(ModelOutput):  # type: ignore[misc]
    """loss: with labels only. logits: (B, num_labels). pooled: (B, D).

    losses, metrics: the model's own, in training or with labels.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    pooled: Tensor | None = None
    losses: dict[str, Tensor] | None = None
    metrics: dict[str, Tensor] | None = None


class SpectralForClassification(SpectralPreTrainedModel):
    """Base of classifiers: a ``classifier`` of one kind of input."""

    loss_named = "ForSequenceClassification"

    def _classified(self, inputs: Tensor, mask: Tensor | None, labels: Tensor | None, options: dict[str, Any]) -> Any:
        return_dict = options.pop("return_dict", None)
        refuse(options)
        found = self.model(inputs, mask)
        loss = None
        if labels is not None:
            if self.config.problem_type not in (None, "single_label_classification"):
                raise ConfigError(
                    f"problem_type {self.config.problem_type!r}: these classifiers put one label of several on a row. "
                    "Leave labels out, and compute another loss from the logits."
                )
            loss = StepLoss.of_logits(found.logits, labels, found.losses if self.training else {}, {}).loss
        output = SpectralClassifierOutput(loss, found.logits, found.pooled, **self.reports(found, labels))
        return output.to_tuple() if return_dict is False else output


class SpectralForSequenceClassification(SpectralForClassification):
    """Texts: a ``classifier`` over an ``encoder``."""

    holds = "a classifier of text"
    listed = modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None, **options: Any
    ) -> Any:
        """labels: (B,) integers from 0 to num_labels - 1."""
        return self._classified(input_ids, attention_mask, labels, options)


class SpectralForImageClassification(SpectralForClassification):
    """Images: a ``classifier`` over a ``vision_encoder``."""

    holds = "a classifier of images"
    listed = modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
    main_input_name = "pixel_values"
    input_modalities = "image"

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None, **options: Any) -> Any:
        """labels: (B,) integers from 0 to num_labels - 1."""
        return self._classified(pixel_values, None, labels, options)


class SpectralForAudioClassification(SpectralForClassification):
    """Audio: a ``classifier`` over an ``audio_encoder``."""

    holds = "a classifier of audio"
    listed = modeling_auto.MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES
    main_input_name = "input_values"
    input_modalities = "audio"

    def forward(
        self, input_values: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None, **options: Any
    ) -> Any:
        """labels: (B,) integers from 0 to num_labels - 1."""
        return self._classified(input_values, attention_mask, labels, options)
