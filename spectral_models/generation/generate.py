"""Generates continuations of prompts token by token, with a decoding state."""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import Tensor

from spectral_core import ConfigError, UnsupportedInputError
from spectral_core.axes import describe
from spectral_layers import State, fixed_weights
from spectral_models.generation.beams import Beams
from spectral_models.generation.drafts import drafter_of
from spectral_models.generation.draws import Draws
from spectral_models.generation.prefill import CHUNK, CausalModel, prefill, prompt_lengths
from spectral_models.generation.sampling import Sampling
from spectral_models.generation.settings import Settings
from spectral_models.generation.speculation import Speculation
from spectral_models.model import SpectralModel


@torch.no_grad()
def generate(
    model: CausalModel,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    state: State | None = None,
    max_new_tokens: int = 128,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
    num_beams: int = 1,
    length_penalty: float = 1.0,
    early_stopping: bool = False,
    num_return_sequences: int = 1,
    stop_tokens: Collection[int] = (),
    pad_token_id: int = 0,
    prefill_chunk: int | None = CHUNK,
    prompt_lookup_num_tokens: int | None = None,
    assistant: SpectralModel | None = None,
    generator: torch.Generator | None = None,
    on_token: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """Prompts (B, L) → (B R, L + new), new <= max_new_tokens. Reads the prompt once, then takes one step per token.

    attention_mask: (B, L), for prompts of different lengths, padded on either side; each row continues its last real
    token. state: the state that the prompts continue; it is consumed. temperature: 0 is greedy; see :class:`Sampling`
    for the other options. num_beams: above 1, a search for the likeliest sequences with length_penalty (above 0 favours
    longer ones) and early_stopping: see :class:`Beams`. num_return_sequences: R, consecutive samples of each prompt, or
    its R best beams, best first. stop_tokens: end a row; the token is kept and followed by pad_token_id. prefill_chunk:
    tokens of a prompt read at a time, all for None; see :func:`prefill`.
    prompt_lookup_num_tokens, assistant: how several tokens are drafted for the model to verify in one call, for one
    prompt alone. The former drafts so many tokens at most from the text itself, the latter is a smaller language model
    with the same vocabulary. Neither changes what is drawn, up to the rounding of logits: see :class:`Speculation`.
    on_token: called with each step's (B R,) drawn tokens; not for beams. generator: for reproducible sampling. The
    model should be in eval mode, since dropout is not disabled. Its weights must not change meanwhile, not even by
    ``on_token`` (:func:`spectral_layers.fixed_weights`).
    Raises UnsupportedInputError for empty prompts, ConfigError for options of another type or out of range.
    """
    settings = Settings(
        sampling=Sampling(temperature, top_k, top_p, repetition_penalty),
        max_new_tokens=max_new_tokens,
        num_beams=num_beams,
        length_penalty=length_penalty,
        early_stopping=early_stopping,
        num_return_sequences=num_return_sequences,
        stop_tokens=stop_tokens,
        pad_token_id=pad_token_id,
        prompt_lookup_num_tokens=prompt_lookup_num_tokens,
        assistant=assistant,
    )
    _check_helpers(settings, generator, on_token)
    lengths = prompt_lengths(input_ids, attention_mask, state)
    settings.check_batch(len(lengths))
    max_new_tokens = settings.max_new_tokens
    batch, device = input_ids.shape[0], input_ids.device
    prompts = input_ids.repeat_interleave(settings.num_return_sequences, 0)
    if max_new_tokens == 0:
        return prompts
    limit = getattr(model, "length_limit", None)
    past = 0 if state is None else state.position
    needed = int((lengths + past).max()) + max_new_tokens - 1
    if limit is not None and needed > limit:
        raise UnsupportedInputError(
            f"the longest prompt and {max_new_tokens} new tokens need {needed} positions; the model has {limit}. "
            "Ask for fewer, or build the model with a larger max_seq_len."
        )
    if assistant is not None and state is not None:
        raise ConfigError("assistant has not read what the state holds. Leave out the state, and give the whole text.")
    logits, state = prefill(model, input_ids, attention_mask, state=state, chunk=prefill_chunk)
    settings.check_vocabulary(logits.shape[1])
    if logits.shape[1] - 1 > torch.iinfo(input_ids.dtype).max:
        raise UnsupportedInputError(
            f"tokens up to {logits.shape[1] - 1} do not fit the prompt's {describe(input_ids)}; give it as int64."
        )
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask != 0
    seen = torch.zeros(logits.shape, dtype=torch.int64, device=device).scatter_add(1, input_ids.long(), mask.long()) > 0
    if settings.copies > 1:
        of_each = torch.arange(batch, device=device).repeat_interleave(settings.copies)
        logits, seen, state = logits[of_each], seen[of_each], _selected(state, of_each)
    search: Beams | Draws
    if settings.num_beams > 1:
        search = Beams(batch, settings, device)
    else:
        search = Draws(batch * settings.copies, settings, generator, device)
    speculation = None
    drafter = drafter_of(settings.prompt_lookup_num_tokens, assistant, logits.shape[1])
    if drafter is not None:
        text = input_ids[mask != 0][None]
        speculation = Speculation(model, drafter, text, state, most=text.shape[1] + max_new_tokens - 1)
    with fixed_weights(model), fixed_weights(assistant):
        while True:
            tokens, parents = search.advance(settings.sampling.penalised(logits, seen))
            tokens = tokens.to(input_ids.dtype)
            if on_token is not None:
                on_token(tokens)
            if search.done:
                return torch.cat([prompts, search.sequences(settings.num_return_sequences).to(input_ids.dtype)], 1)
            if parents is not None:
                seen, state = seen[parents], _selected(state, parents)
            seen = seen.scatter(1, tokens[:, None].long(), True)
            if speculation is not None:
                logits = speculation.read(tokens[:, None])
                continue
            output = model(tokens[:, None], state=state, return_state=True)
            logits, state = output.logits[:, -1], output.state


def _selected(state: State | None, index: Tensor) -> State:
    assert state is not None
    return state.select(index)


def _check_helpers(settings: Settings, generator: object, on_token: object) -> None:
    """Raise ConfigError for arguments of another type, and for on_token in a beam search."""
    if not isinstance(generator, torch.Generator | None):
        raise ConfigError(f"generator must be a torch.Generator; got {generator!r}. torch.Generator().manual_seed(0)?")
    if on_token is not None and not callable(on_token):
        raise ConfigError(f"on_token must be a function of each step's tokens; got {on_token!r}.")
    if on_token is not None and settings.num_beams > 1:
        raise ConfigError(
            f"on_token hears tokens as they are drawn; a search with num_beams {settings.num_beams} decides at its end."
        )
