"""The language model, under Hugging Face's name for it, and its ``generate`` with our state for a cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional as F
from transformers.models.auto import modeling_auto

from spectral_core import UnsupportedInputError
from spectral_models.integrations.huggingface.cache import CachedGenerationMixin, SpectralCache, given_or_made
from spectral_models.integrations.huggingface.outputs import WHEN_READ, Logits, OutputWhenRead, when_read
from spectral_models.integrations.huggingface.pretrained import SpectralPreTrainedModel, refuse
from spectral_models.loss import IGNORE, StepLoss


@dataclass
class SpectralCausalLMOutput(OutputWhenRead):
    """loss: with labels only. past_key_values: what continues the rows, if asked for. losses, metrics: the model's
    own, in training or with labels.

    logits: (B, L, V), or of the columns that were asked for; in training with labels computed when they are read.
    """

    loss: Tensor | None = None
    logits: Logits = WHEN_READ
    past_key_values: SpectralCache | None = None
    losses: dict[str, Tensor] | None = None
    metrics: dict[str, Tensor] | None = None


class SpectralForCausalLM(CachedGenerationMixin, SpectralPreTrainedModel):
    """A ``language_model``. ``generate``, Hugging Face's, computes each token once; prompts are padded on the left."""

    holds = "a language_model"
    listed = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    loss_named = "ForCausalLM"
    accepts_loss_kwargs = True

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: SpectralCache | None = None,
        labels: Tensor | None = None,
        *,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: Tensor | int | None = None,
        return_dict: bool | None = None,
        **options: Any,
    ) -> Any:
        """labels: (B, L), the input ids themselves, as everywhere in Hugging Face: shifted here, -100 ignored.

        shift_labels, by name: instead, labels that are shifted already (Trainer looks in every batch for all labels of
        the signature). In training, with labels, the loss is made in chunks of tokens, and logits only if they are
        read: those of all tokens would be most of the memory.
        past_key_values: a cache that the tokens continue; attention_mask then is of its columns and these, or of these.
        use_cache: make one. logits_to_keep: only of so many last columns, or of these columns; 0 for all.
        """
        shift_labels: Tensor | None = options.pop("shift_labels", None)
        refuse(options)
        cache = given_or_made(past_key_values, use_cache)
        if attention_mask is not None:
            attention_mask = attention_mask[:, -input_ids.shape[1] :]
            if cache is not None and bool((attention_mask != 0).all()):
                attention_mask = None
        if shift_labels is None and labels is not None:
            shift_labels = F.pad(labels[:, 1:], (0, 1), value=IGNORE)
        if shift_labels is not None and attention_mask is not None:
            shift_labels = shift_labels.masked_fill(attention_mask == 0, IGNORE)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        if shift_labels is not None and self.training:
            if cache is not None:
                raise UnsupportedInputError("in training, labels go without a cache: leave use_cache false.")
            made = self.model.loss(input_ids, shift_labels, attention_mask, step_count=num_items_in_batch)
            logits = when_read(made.logits, self.model, kept)
            found = SpectralCausalLMOutput(made.loss, logits, losses=made.losses, metrics=made.metrics)
            return found.to_tuple() if return_dict is False else found
        # The last columns are each row's last tokens where none of them is padding; else all are made, and cut.
        last = logits_to_keep if isinstance(logits_to_keep, int) else 0
        if attention_mask is not None and not bool((attention_mask[:, -last:] != 0).all()):
            last = 0
        output = self.model(
            input_ids,
            attention_mask,
            state=None if cache is None else cache.state,
            return_state=cache is not None,
            logits_to_keep=0 if shift_labels is not None else last,
        )
        if cache is not None:
            cache.take(output.state, input_ids.shape[1])
        loss = None
        if shift_labels is not None:
            loss = StepLoss.of_logits(output.logits, shift_labels, {}, {}, num_items_in_batch).loss
        found = SpectralCausalLMOutput(loss, output.logits[:, kept], cache, **self.reports(output, shift_labels))
        return found.to_tuple() if return_dict is False else found
