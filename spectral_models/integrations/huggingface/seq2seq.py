"""The sequence-to-sequence model of Hugging Face."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers.models.auto import modeling_auto
from transformers.utils import ModelOutput

from spectral_core import UnsupportedInputError
from spectral_layers.report import with_hidden_states
from spectral_models.integrations.huggingface.cache import CachedGenerationMixin, SpectralCache
from spectral_models.integrations.huggingface.forward import refuse
from spectral_models.integrations.huggingface.outputs import hidden_states_of
from spectral_models.integrations.huggingface.pretrained import SpectralPreTrainedModel


@dataclass
class SpectralSourceOutput(ModelOutput):  # type: ignore[misc]
    """last_hidden_state: (B, S, D), arbitrary at padding. pooled: (B, D). mask: (B, S), if the source had one."""

    last_hidden_state: Tensor | None = None
    pooled: Tensor | None = None
    mask: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None

    @property
    def hidden(self) -> Tensor:
        """``last_hidden_state`` as our encoders name it."""
        assert self.last_hidden_state is not None
        return self.last_hidden_state


class SpectralForSeq2SeqLM(CachedGenerationMixin, SpectralPreTrainedModel):
    """Text-to-text models. The model's config names the start, end and padding tokens of targets."""

    model_kind = "models of text to text"
    chunked_loss = True
    task_names = modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
    loss_name = "ForMaskedLM"  # transformers' loss over tokens that does not shift labels
    accepts_loss_kwargs = True

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: SpectralSourceOutput | None = None,
        past_key_values: SpectralCache | None = None,
        labels: Tensor | None = None,
        *,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **options: Any,
    ) -> Any:
        """input_ids or inputs_embeds, attention_mask: the source's. decoder_input_ids: the target with its start token.

        labels: (B, L), the target, with -100 at padding; decoder_input_ids are derived from them if omitted. In
        training with labels the loss is computed in chunks, and logits only if they are read. encoder_outputs: of the
        source, in place of its ids. past_key_values: a cache that the target continues; it contains the source.
        """
        cache = self.cache_of(past_key_values, use_cache)
        state = None if cache is None else cache.state
        if state is None and encoder_outputs is not None:
            state = self.model.read(encoder_outputs)
        if state is not None:
            source = attention_mask = None
        else:
            source = self.token_inputs(input_ids, inputs_embeds)
        if decoder_input_ids is None and labels is None:
            raise UnsupportedInputError(
                "there is no target: give decoder_input_ids, from the start token on, or labels."
            )
        if decoder_input_ids is None and not self.training:
            decoder_input_ids = self.model.decoder_inputs(labels)
        inputs = {"input_ids": source, "decoder_input_ids": decoder_input_ids}
        target: dict[str, Any] = {"decoder_attention_mask": decoder_attention_mask, "state": state}
        return self.call_model(inputs, attention_mask, labels, options, cache=cache, **target)

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """Called by Hugging Face's collators."""
        inputs: Tensor = self.model.decoder_inputs(labels)
        return inputs

    def get_encoder(self, modality: str | None = None) -> nn.Module:
        return _Source(self.model.encoder)


class _Source(nn.Module):
    """The encoder with the arguments and the output that ``generate`` expects."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        inputs_embeds: Tensor | None = None,
        output_hidden_states: bool = False,
        return_dict: bool | None = None,
        **options: Any,
    ) -> SpectralSourceOutput:
        refuse(options)
        with with_hidden_states("all" if output_hidden_states else "none"):
            output = self.encoder(inputs_embeds if input_ids is None else input_ids, attention_mask)
        return SpectralSourceOutput(output.hidden, output.pooled, output.mask, **hidden_states_of(output))
