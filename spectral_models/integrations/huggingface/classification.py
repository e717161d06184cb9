"""Hugging Face's classifiers of texts, tokens, images and audio."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.models.auto import modeling_auto

from spectral_models.integrations.huggingface.pretrained import SpectralPreTrainedModel, SpectralTextModel


class SpectralForClassification(SpectralPreTrainedModel):
    """Base of classifiers with one output per row.

    Labels by ``problem_type``: (B,) integers from 0 to num_labels - 1 for single_label_classification; (B, num_labels)
    floats from 0 to 1 for multi_label_classification; (B, num_labels) floats, or (B,) for one label, for regression.
    """

    loss_name = "ForSequenceClassification"
    extra_fields = ("pooled",)


class SpectralForSequenceClassification(SpectralForClassification, SpectralTextModel):
    """Classification and regression of texts."""

    model_kind = "classifiers of texts"
    task_names = modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES


class SpectralForImageClassification(SpectralForClassification):
    """Classification and regression of images."""

    model_kind = "classifiers of images"
    task_names = modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
    main_input_name = "pixel_values"
    input_modalities = "image"

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None, **options: Any) -> Any:
        return self.call_model({"pixel_values": pixel_values}, None, labels, options)


class SpectralForAudioClassification(SpectralForClassification):
    """Classification and regression of recordings."""

    model_kind = "classifiers of audio"
    task_names = modeling_auto.MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES
    main_input_name = "input_values"
    input_modalities = "audio"

    def forward(
        self, input_values: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None, **options: Any
    ) -> Any:
        return self.call_model({"input_values": input_values}, attention_mask, labels, options)


class SpectralForTokenClassification(SpectralTextModel):
    """A label for each token of a text.

    Labels are (B, L) integers from 0 to num_labels - 1, and -100 at padding and at tokens without a label.
    """

    model_kind = "classifiers of tokens"
    task_names = modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES
    loss_name = "ForTokenClassification"
    accepts_loss_kwargs = True
