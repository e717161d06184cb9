"""The masked language model, under Hugging Face's name for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers.models.auto import modeling_auto

from spectral_models.integrations.huggingface.outputs import WHEN_READ, Logits, OutputWhenRead, when_read
from spectral_models.integrations.huggingface.pretrained import SpectralPreTrainedModel, refuse
from spectral_models.loss import StepLoss


@dataclass
class SpectralMaskedLMOutput(OutputWhenRead):
    """loss: with labels only. losses, metrics: the encoder's own, in training or with labels.

    logits: (B, L, V), in training with labels computed when they are read. hidden, pooled: the encoder's own, None
    then.
    """

    loss: Tensor | None = None
    logits: Logits = WHEN_READ
    hidden: Tensor | None = None
    pooled: Tensor | None = None
    losses: dict[str, Tensor] | None = None
    metrics: dict[str, Tensor] | None = None


class SpectralForMaskedLM(SpectralPreTrainedModel):
    """An ``encoder`` with ``masked_lm: true``."""

    holds = "an encoder with masked_lm: true"
    listed = modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    loss_named = "ForMaskedLM"
    accepts_loss_kwargs = True

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        num_items_in_batch: Tensor | int | None = None,
        return_dict: bool | None = None,
        **options: Any,
    ) -> Any:
        """labels: (B, L), the tokens that stood at masked places, -100 everywhere else.

        In training with labels the loss is made of masked places only, and logits if they are read.
        """
        refuse(options)
        if labels is not None and self.training:
            made = self.model.loss(input_ids, labels, attention_mask, step_count=num_items_in_batch)
            output = SpectralMaskedLMOutput(
                made.loss, when_read(made.logits, self.model), losses=made.losses, metrics=made.metrics
            )
            return output.to_tuple() if return_dict is False else output
        found = self.model(input_ids, attention_mask)
        loss = None
        if labels is not None:
            loss = StepLoss.of_logits(found.logits, labels, {}, {}, num_items_in_batch).loss
        output = SpectralMaskedLMOutput(loss, found.logits, found.hidden, found.pooled, **self.reports(found, labels))
        return output.to_tuple() if return_dict is False else output
