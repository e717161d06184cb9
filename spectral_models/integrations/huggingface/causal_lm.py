"""The causal language model of Hugging Face, whose ``generate`` has our state for its cache."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.auto import modeling_auto

from spectral_models.generation.rollback import MOST_PENDING
from spectral_models.integrations.huggingface.base import SpectralHFModel
from spectral_models.integrations.huggingface.cache import CachedGenerationMixin, SpectralCache
from spectral_models.integrations.huggingface.pretrained import SpectralPreTrainedModel
from spectral_models.loss import IGNORE


class SpectralForCausalLM(CachedGenerationMixin, SpectralPreTrainedModel):
    """Causal language models. Hugging Face's ``generate`` computes each token once; prompts are padded on the left."""

    model_kind = "causal language models"
    chunked_loss = True
    task_names = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    loss_name = "ForCausalLM"
    accepts_loss_kwargs = True

    @property
    def base_model(self) -> SpectralHFModel:
        """The same model with hidden states as its output, from which TRL's trainers compute logits themselves.

        It shares all weights, and is no submodule.
        """
        base: SpectralHFModel | None = self.__dict__.get("_base")
        if base is None or base.model is not self.model:
            base = self.__dict__["_base"] = SpectralHFModel(self.config, self.model)
        return base

    def get_output_embeddings(self) -> nn.Module | None:
        head: nn.Module | None = self.model.output_embedding
        return head

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: SpectralCache | None = None,
        labels: Tensor | None = None,
        *,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **options: Any,
    ) -> Any:
        """labels: (B, L), the input ids; they are shifted here, and -100 is ignored. shift_labels: already shifted.

        In training with labels the loss is computed in chunks of tokens, and logits, which would take most of the
        memory, only if they are read. past_key_values: a cache that the tokens continue; attention_mask is then of the
        cached columns and these, or of these. use_cache: create a cache. logits_to_keep: logits of that many last
        columns, 0 for all, or of the columns in a tensor.
        """
        # Not in the signature: Trainer expects every batch to have all labels that are.
        shift_labels: Tensor | None = options.pop("shift_labels", None)
        cache = self.cache_of(past_key_values, use_cache)
        tokens = self.token_inputs(input_ids, inputs_embeds)
        if attention_mask is not None:
            attention_mask = attention_mask[:, -tokens.shape[1] :]
        if cache is not None:
            tokens, attention_mask, logits_to_keep = self._due(cache, tokens, attention_mask, logits_to_keep)
        if cache is not None and attention_mask is not None and bool((attention_mask != 0).all()):
            attention_mask = None
        if shift_labels is None and labels is not None:
            shift_labels = F.pad(labels[:, 1:], (0, 1), value=IGNORE)
        if shift_labels is not None and attention_mask is not None:
            shift_labels = shift_labels.masked_fill(attention_mask == 0, IGNORE)
        # If none of the last columns is padding, they are each row's last tokens; else all logits are computed.
        last = logits_to_keep if isinstance(logits_to_keep, int) and shift_labels is None and self.model.streams else 0
        if attention_mask is not None and not bool((attention_mask[:, -last:] != 0).all()):
            last = 0
        fewer = {"logits_to_keep": last} if last else {}
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        return self.call_model(
            {"input_ids": tokens}, attention_mask, shift_labels, options, cache=cache, columns=kept, **fewer
        )

    def _due(
        self, cache: SpectralCache, ids: Tensor, mask: Tensor | None, kept: int | Tensor
    ) -> tuple[Tensor, Tensor | None, int | Tensor]:
        """What a call reads for these columns: the cache's pending ones in front; and which logits it then keeps.

        Of a first call whose last columns may be taken back, the others are read here; so are many pending ones.
        """
        if cache.recording and cache.state is None and isinstance(kept, int) and 0 < kept < ids.shape[1]:
            self._read(cache, ids[:, :-kept], None if mask is None else mask[:, :-kept])
            ids, mask = ids[:, -kept:], None if mask is None else mask[:, -kept:]
        if cache.pending is None:
            return ids, mask, kept
        if cache.pending.shape[1] >= MOST_PENDING:
            self._read(cache, cache.pending, None)
            return ids, mask, kept
        before = cache.pending.shape[1]
        kept = kept + before if isinstance(kept, Tensor) else kept or ids.shape[1]
        return cache.due(ids), None if mask is None else F.pad(mask, (before, 0), value=1), kept

    def _read(self, cache: SpectralCache, ids: Tensor, mask: Tensor | None) -> None:
        self.call_model({"input_ids": ids}, mask, None, {}, cache=cache, columns=slice(-1, None), logits_to_keep=1)
        cache.settle()
