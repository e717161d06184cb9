"""Classifiers of texts, of their tokens, of images and of audio, under Hugging Face's names for them."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.models.auto import modeling_auto

from spectral_models.integrations.huggingface.pretrained import SpectralPreTrainedModel


class SpectralForClassification(SpectralPreTrainedModel):
    """Base of classifiers of rows of one kind of input.

    Labels are, as the model's ``problem_type`` says, (B,) integers from 0 to num_labels - 1, or (B, num_labels) numbers
    in floating point: of multi-label classification from 0 to 1, of regression any, (B,) too where there is one.
    """

    loss_named = "ForSequenceClassification"
    gives = ("pooled",)


class SpectralForSequenceClassification(SpectralForClassification):
    """A label for each text, a set of labels, or numbers."""

    holds = "classifiers of texts"
    listed = modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        inputs_embeds: Tensor | None = None,
        **options: Any,
    ) -> Any:
        inputs = {"input_ids": self.token_inputs(input_ids, inputs_embeds)}
        return self.answered(inputs, attention_mask, labels, options)


class SpectralForImageClassification(SpectralForClassification):
    """The same for each image."""

    holds = "classifiers of images"
    listed = modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
    main_input_name = "pixel_values"
    input_modalities = "image"

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None, **options: Any) -> Any:
        return self.answered({"pixel_values": pixel_values}, None, labels, options)


class SpectralForAudioClassification(SpectralForClassification):
    """The same for each recording."""

    holds = "classifiers of audio"
    listed = modeling_auto.MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES
    main_input_name = "input_values"
    input_modalities = "audio"

    def forward(
        self, input_values: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None, **options: Any
    ) -> Any:
        return self.answered({"input_values": input_values}, attention_mask, labels, options)


class SpectralForTokenClassification(SpectralPreTrainedModel):
    """A label for each token of a text."""

    holds = "classifiers of tokens"
    listed = modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES
    loss_named = "ForTokenClassification"
    accepts_loss_kwargs = True

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        inputs_embeds: Tensor | None = None,
        **options: Any,
    ) -> Any:
        """labels: (B, L) integers from 0 to num_labels - 1, -100 at tokens that have none, and at padding."""
        inputs = {"input_ids": self.token_inputs(input_ids, inputs_embeds)}
        return self.answered(inputs, attention_mask, labels, options)
