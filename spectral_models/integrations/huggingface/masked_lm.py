"""The masked language model of Hugging Face."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.models.auto import modeling_auto

from spectral_models.integrations.huggingface.pretrained import SpectralPreTrainedModel


class SpectralForMaskedLM(SpectralPreTrainedModel):
    """Masked language models."""

    model_kind = "masked language models"
    extra_fields = ("hidden", "pooled")
    chunked_loss = True
    task_names = modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    loss_name = "ForMaskedLM"
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
        """labels: (B, L), the original tokens at masked positions and -100 elsewhere.

        In training with labels, logits are computed at masked positions only, and at all when they are read.
        """
        inputs = {"input_ids": self.token_inputs(input_ids, inputs_embeds)}
        return self.call_model(inputs, attention_mask, labels, options)
