"""Our decoding state where Hugging Face keeps a cache of keys and values."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor
from transformers import GenerationConfig, GenerationMixin
from transformers.generation import GenerationMode

from spectral_core import ConfigError, UnsupportedInputError
from spectral_layers import State


class SpectralCache:
    """Holds the state that the next call consumes; the call leaves the one it returned.

    length: columns read so far, padding included, as Hugging Face counts them. A row's own count is in the state.
    """

    is_compileable: ClassVar[bool] = False
    is_croppable: ClassVar[bool] = False

    def __init__(self) -> None:
        self.state: State | None = None
        self.length = 0

    def take(self, state: State | None, columns: int) -> None:
        """What a call of so many columns returned."""
        self.state = state
        self.length += columns

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.length

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Let row i go on from what row ``beam_idx[i]`` was."""
        if self.state is not None:
            self.state = self.state.select(beam_idx)


class CachedGenerationMixin(GenerationMixin):  # type: ignore[misc]  # transformers carries no annotations mypy can follow
    """Hugging Face's generate(), with our state for its cache: each token is computed once.

    Stands in front of PreTrainedModel, which has defaults for the same names.
    """

    _is_stateful = True

    def cache_of(self, given: object, wanted: bool | None) -> SpectralCache | None:
        """The cache of a call: the one it was given, a new one if one is wanted and the model has a state, or none."""
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
        """Raise ConfigError for decoding that takes tokens back: a state has no earlier tokens to return to."""
        if generation_mode == GenerationMode.ASSISTED_GENERATION or generation_config.is_assistant:
            raise ConfigError(
                f"{type(self).__name__} takes no part in assisted generation, as the model or as the assistant: a "
                "rejected token cannot be taken out of its state. Leave out assistant_model, prompt_lookup_num_tokens "
                "and assistant_early_exit."
            )
        super()._validate_generation_mode(generation_mode, generation_config, generation_mode_kwargs)

    def init_continuous_batching(self, *_: Any, **__: Any) -> None:
        """What ``generate_batch`` begins with. Raises ConfigError."""
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
        """What the next call of the model takes. The tokenizers are for stopping criteria (``stop_strings``) alone."""
        return super().prepare_inputs_for_generation(input_ids, *args, inputs_embeds=inputs_embeds, **kwargs)

    def _prepare_cache_for_generation(
        self, generation_config: GenerationConfig, model_kwargs: dict[str, Any], *_: Any, **__: Any
    ) -> None:
        if generation_config.cache_implementation is not None:
            raise ConfigError(
                f"cache_implementation {generation_config.cache_implementation!r}: there are no keys and values to "
                "keep, and the state is one. Leave it out."
            )
        # Elsewhere the first call makes one: PEFT puts its virtual tokens in front only where there is none yet.
        chunks = generation_config.use_cache and generation_config.prefill_chunk_size is not None
        if chunks and self.model.streams and model_kwargs.get("past_key_values") is None:
            model_kwargs["past_key_values"] = SpectralCache()
