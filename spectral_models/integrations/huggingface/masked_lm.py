"""The masked language model of Hugging Face."""

from __future__ import annotations

from transformers.models.auto import modeling_auto

from spectral_models.integrations.huggingface.pretrained import SpectralTextModel


class SpectralForMaskedLM(SpectralTextModel):
    """Masked language models.

    Labels are (B, L), the original tokens at masked positions and -100 elsewhere. In training with labels, logits are
    computed at masked positions only, and at all when they are read.
    """

    model_kind = "masked language models"
    extra_fields = ("hidden", "pooled")
    chunked_loss = True
    task_names = modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    loss_name = "ForMaskedLM"
    accepts_loss_kwargs = True
