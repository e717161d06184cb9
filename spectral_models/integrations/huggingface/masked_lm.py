"""The masked language model, under Hugging Face's name for it."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.models.auto import modeling_auto

from spectral_models.integrations.huggingface.pretrained import SpectralPreTrainedModel


class SpectralForMaskedLM(SpectralPreTrainedModel):
    """Masked language models."""

    holds = "masked language models"
    gives = ("hidden", "pooled")
    in_chunks = True
    listed = modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    loss_named = "ForMaskedLM"
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
        """labels: (B, L), the tokens that stood at masked places, -100 everywhere else.

        In training with labels the loss is made of masked places only, and logits if they are read.
        """
        inputs = {"input_ids": self.token_inputs(input_ids, inputs_embeds)}
        return self.answered(inputs, attention_mask, labels, options)
