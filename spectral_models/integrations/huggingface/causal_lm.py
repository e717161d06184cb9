"""The language model, under Hugging Face's name for it, and its ``generate`` with our state for a cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional as F
from transformers.utils import ModelOutput

from spectral_models.config import ModelConfig
from spectral_models.data.windows import IGNORE
from spectral_models.integrations.huggingface.cache import CachedGenerationMixin, SpectralCache, given_or_made
from spectral_models.integrations.huggingface.pretrained import SpectralPreTrainedModel, refuse, token_loss
from spectral_models.variants.language_model import LanguageModel, LanguageModelConfig


@dataclass
class SpectralCausalLMOutput(ModelOutput):  # type: ignore[misc]
    """loss: with labels only. logits: (B, L, V). past_key_values: what continues the rows, if asked for.

    losses, metrics: the model's own.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: SpectralCache | None = None
    losses: dict[str, Tensor] | None = None
    metrics: dict[str, Tensor] | None = None


class SpectralForCausalLM(SpectralPreTrainedModel, CachedGenerationMixin):
    """A ``language_model``. ``generate``, Hugging Face's, computes each token once; prompts are padded on the left."""

    holds = "a language_model"
    earlier_names = LanguageModel.earlier_names
    accepts_loss_kwargs = True

    @classmethod
    def takes(cls, config: ModelConfig) -> bool:
        return isinstance(config, LanguageModelConfig)

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

        past_key_values: a cache that the tokens continue; attention_mask then is of its columns and these, or of these.
        use_cache: make one. logits_to_keep: only of so many last columns, or of these columns; 0 for all.
        """
        refuse(options)
        cache = given_or_made(past_key_values, use_cache)
        if attention_mask is not None:
            attention_mask = attention_mask[:, -input_ids.shape[1] :]
            if cache is not None and bool((attention_mask != 0).all()):
                attention_mask = None
        output = self.model(
            input_ids, attention_mask, state=None if cache is None else cache.state, return_state=cache is not None
        )
        if cache is not None:
            cache.take(output.state, input_ids.shape[1])
        loss = None
        if labels is not None:
            losses = output.losses.values() if self.training else ()
            loss = token_loss(output.logits, F.pad(labels[:, 1:], (0, 1), value=IGNORE), losses, num_items_in_batch)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        found = SpectralCausalLMOutput(loss, output.logits[:, kept], cache, output.losses, output.metrics)
        return found.to_tuple() if return_dict is False else found
