"""Continuing prompts token by token, each computed once: the state carries the past."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

import torch
from torch import Tensor

from spectral_core import ConfigError, UnsupportedInputError
from spectral_core.axes import describe
from spectral_layers import State
from spectral_models.generation.sampling import Sampling


class _Output(Protocol):
    logits: Tensor
    state: State | None


class CausalModel(Protocol):
    """What can be generated with."""

    def __call__(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        state: State | None = None,
        return_state: bool = False,
    ) -> _Output: ...


@torch.no_grad()
def generate(
    model: CausalModel,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    max_new_tokens: int = 128,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
    stop_tokens: Collection[int] = (),
    pad_token_id: int = 0,
    generator: torch.Generator | None = None,
    on_token: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """Prompts (B, L) → (B, L + new), new <= max_new_tokens; the prompt is read once, each new token costs one step.

    attention_mask: (B, L), for prompts of different lengths, padded on either side; a row continues its own last real
    token. temperature 0 is greedy; see :class:`Sampling` for the rest. stop_tokens: a row that draws one is done: the
    token is kept, and pad_token_id follows it. on_token: called with each step's (B,) tokens as they are drawn.
    generator: for reproducible sampling. The model should be in eval mode: dropout would act here too.
    Raises UnsupportedInputError for empty prompts, ConfigError for options out of range.
    """
    sampling = Sampling(temperature, top_k, top_p, repetition_penalty)
    if max_new_tokens < 0:
        raise ConfigError(f"max_new_tokens must be at least 0; got {max_new_tokens}.")
    if input_ids.dim() != 2 or 0 in input_ids.shape:
        raise UnsupportedInputError(f"a prompt is (B, L) with at least one token per row; got {describe(input_ids)}.")
    batch, length = input_ids.shape
    device = input_ids.device
    mask = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask != 0
    if mask.shape != input_ids.shape:
        raise UnsupportedInputError(
            f"the attention mask {describe(mask)} must have the prompt's shape {describe(input_ids)}."
        )
    if not bool(mask.any(1).all()):
        raise UnsupportedInputError(f"rows {(~mask.any(1)).nonzero().flatten().tolist()} of the prompt are empty.")
    if max_new_tokens == 0:
        return input_ids.clone()
    limit = getattr(model, "length_limit", None)
    needed = int(mask.sum(1).max()) + max_new_tokens - 1
    if limit is not None and needed > limit:
        raise UnsupportedInputError(
            f"the longest prompt and {max_new_tokens} new tokens need {needed} positions; the model has {limit}. "
            "Ask for fewer, or build the model with a larger max_seq_len."
        )
    output = model(input_ids, attention_mask, return_state=True)
    last = length - 1 - mask.flip(1).int().argmax(1)
    logits = output.logits[torch.arange(batch, device=device), last]
    if not 0 <= pad_token_id < logits.shape[1]:
        raise ConfigError(f"pad_token_id must be a token, from 0 to {logits.shape[1] - 1}; got {pad_token_id}.")
    if logits.shape[1] - 1 > torch.iinfo(input_ids.dtype).max:
        raise UnsupportedInputError(
            f"tokens up to {logits.shape[1] - 1} do not fit the prompt's {describe(input_ids)}; give it as int64."
        )
    seen = torch.zeros(logits.shape, dtype=torch.int64, device=device).scatter_add(1, input_ids.long(), mask.long()) > 0
    stops = torch.tensor(sorted(stop_tokens), dtype=input_ids.dtype, device=device)
    done = torch.zeros(batch, dtype=torch.bool, device=device)
    drawn: list[Tensor] = []
    while True:
        token = torch.where(done, pad_token_id, sampling.draw(logits, seen, generator)).to(input_ids.dtype)
        drawn.append(token)
        if on_token is not None:
            on_token(token)
        seen = seen.scatter(1, token[:, None].long(), True)
        done = done | torch.isin(token, stops)
        if len(drawn) >= max_new_tokens or bool(done.all()):
            return torch.cat([input_ids, torch.stack(drawn, 1)], 1)
        output = model(token[:, None], state=output.state, return_state=True)
        logits = output.logits[:, -1]
