"""The cache of Hugging Face's ``generate``: our decoding state in place of keys and values."""

from __future__ import annotations

import zlib
from typing import Any, ClassVar

from torch import Tensor
from transformers import GenerationConfig, GenerationMixin
from transformers.generation import GenerationMode

from spectral_core import ConfigError, UnsupportedInputError
from spectral_layers import State
from spectral_models.generation.rollback import Rollback


class SpectralCache(Rollback):
    """Holds the state that the next call consumes, and then the state that this call returned.

    length: columns read so far, padding included, as Hugging Face counts them. The state counts each row's own tokens,
    without the pending ones. recording: whether columns since the last :meth:`crop` can be taken back.
    """

    is_compileable: ClassVar[bool] = False
    is_croppable: ClassVar[bool] = False  # or generate, on mps, reads a cache's layers

    def __init__(self) -> None:
        super().__init__()
        self.length = 0
        self.recording = False
        self._sum: int | None = 0  # of the columns that the state has read; None where that is not known

    def begun(self) -> State | None:
        return super().begun() if self.recording else self.state

    def take(self, state: State | None, read: Tensor) -> None:
        self.length += read.shape[1] - (0 if self.pending is None else self.pending.shape[1])
        super().take(state, read)
        if not self.recording:
            self.settle()

    def settle(self, back: int = 0) -> None:
        for read in () if back else self._since:
            self._sum = _checksum(read, self._sum)
        super().settle(back)

    def check_begins(self, ids: Tensor) -> None:
        """Raise UnsupportedInputError unless the columns that were read are the first of ids (B, L)."""
        read = self.length if self.pending is None else self.length - self.pending.shape[1]
        if self._sum is not None and _checksum(ids[:, :read], 0) != self._sum:
            raise UnsupportedInputError(
                f"the {read} columns that past_key_values has read are not the first of these input ids. Continue what "
                "it has read, token by token (a text that was decoded and encoded again may have others), or begin "
                f"with a new {type(self).__name__}()."
            )

    def activate_past_recording(self) -> None:
        self.recording = True

    def crop(self, columns: int) -> None:
        """Take back the last -columns columns, none for 0; the columns before them cannot be taken back any more."""
        self.settle(-columns)
        self.length += columns

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.length

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Continue row ``beam_idx[i]`` as row i."""
        if self.state is not None:
            self.state = self.state.select(beam_idx)
            self._sum = None


def _checksum(columns: Tensor, before: int | None) -> int | None:
    """CRC-32 of token ids column by column, which does not depend on how they are divided into calls."""
    if before is None or columns.is_floating_point():
        return None
    return zlib.crc32(columns.T.long().cpu().contiguous().numpy().tobytes(), before)


class CachedGenerationMixin(GenerationMixin):  # type: ignore[misc]  # transformers carries no annotations mypy can follow
    """Hugging Face's generate() with our state as its cache, so that each token is computed once.

    Precedes PreTrainedModel among the bases, which has defaults of the same names.
    """

    def cache_of(self, given: object, wanted: bool | None) -> SpectralCache | None:
        """The cache of a call: the given one; else a new one if wanted and the model has a state; else None."""
        if given is None:
            return SpectralCache() if wanted and self.model.streams else None
        if not isinstance(given, SpectralCache):
            raise UnsupportedInputError(
                f"past_key_values is a {SpectralCache.__name__}, as use_cache=True gives; got {type(given).__name__}."
            )
        return given

    def _validate_generation_mode(
        self, generation_mode: GenerationMode, generation_config: GenerationConfig, generation_mode_kwargs: Any
    ) -> None:
        """Raise ConfigError for drafts that the model cannot verify, or make for another."""
        wanted = (generation_mode_kwargs.get("assistant_model"), generation_config.prompt_lookup_num_tokens)
        assisted = generation_mode == GenerationMode.ASSISTED_GENERATION
        if assisted or generation_config.is_assistant or wanted != (None, None):
            reason = self._cannot_draft(generation_config)
            if reason is not None:
                raise ConfigError(f"{type(self).__name__} takes no part in this assisted generation: {reason}")
        super()._validate_generation_mode(generation_mode, generation_config, generation_mode_kwargs)

    def _cannot_draft(self, generation_config: GenerationConfig) -> str | None:
        if self.config.is_encoder_decoder:
            return (
                "the cache of a source and its target takes nothing back. Leave out assistant_model and "
                "prompt_lookup_num_tokens; .model.generate(source, prompt_lookup_num_tokens=...) has the latter."
            )
        if generation_config.assistant_early_exit is not None:
            return "its blocks are not trained to end early. Leave out assistant_early_exit."
        if (generation_config.num_beams or 1) > 1:
            return "drafts are of one sequence, and num_beams searches several. Leave one of them out."
        if not generation_config.use_cache or not self.model.streams:
            return "drafts continue a state, which needs use_cache and a model that streams."
        return None

    def init_continuous_batching(self, *_: Any, **__: Any) -> None:
        """Called first by ``generate_batch``. Raises ConfigError."""
        raise ConfigError(
            "continuous batching pages keys and values, and there are none. Call generate() with a batch of prompts."
        )

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        *args: Any,
        inputs_embeds: Tensor | None = None,  # generate() reads this signature to see whether embeddings are taken
        tokenizer: object = None,
        assistant_tokenizer: object = None,
        **kwargs: Any,
    ) -> Any:
        """The arguments of the next call of the model. The tokenizers are for ``stop_strings`` only.

        A model of transformers that ours assists passes position_ids; our positions are in the state.
        """
        cache = kwargs.get("past_key_values")
        if isinstance(cache, SpectralCache):
            if cache.recording:
                kwargs.pop("position_ids", None)
            if kwargs.get("is_first_iteration") and cache.length and cache.recording:
                kwargs["next_sequence_length"] = input_ids.shape[1] - cache.length  # transformers would read all again
            if kwargs.get("is_first_iteration") and kwargs.get("next_sequence_length") is not None:
                cache.check_begins(input_ids)  # all ids, not the next ones alone
        return super().prepare_inputs_for_generation(input_ids, *args, inputs_embeds=inputs_embeds, **kwargs)

    def _prepare_cache_for_generation(
        self,
        generation_config: GenerationConfig,
        model_kwargs: dict[str, Any],
        generation_mode: GenerationMode,
        *_: Any,
        **__: Any,
    ) -> None:
        if generation_config.cache_implementation is not None:
            raise ConfigError(
                f"cache_implementation {generation_config.cache_implementation!r}: there are no keys and values to "
                "keep, and the state is one. Leave it out."
            )
        assisted = generation_mode == GenerationMode.ASSISTED_GENERATION or bool(generation_config.is_assistant)
        # Elsewhere the first call makes one: PEFT puts its virtual tokens in front only where there is none yet.
        early = generation_config.use_cache and (assisted or generation_config.prefill_chunk_size is not None)
        if early and self.model.streams and model_kwargs.get("past_key_values") is None:
            model_kwargs["past_key_values"] = SpectralCache()
        cache = model_kwargs.get("past_key_values")
        if isinstance(cache, SpectralCache):
            cache.recording = assisted
