"""Reads prompts of any length in chunks, each of which continues the state of the chunks before it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Protocol

import torch
from torch import Tensor

from spectral_core import UnsupportedInputError
from spectral_core.axes import describe
from spectral_layers import Rows, State, fixed_weights
from spectral_layers.rows import Alignment
from spectral_models.arguments import whole

CHUNK = 16_384


class Output(Protocol):
    logits: Tensor
    state: State | None


class CausalModel(Protocol):
    """A model that can read prompts and generate."""

    def __call__(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        state: State | None = None,
        return_state: bool = False,
        logits_to_keep: int = 0,
    ) -> Output: ...


@torch.no_grad()
def prefill(
    model: CausalModel,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    state: State | None = None,
    chunk: int | None = CHUNK,
) -> tuple[Tensor, State]:
    """Read prompts (B, L). Returns the logits after each row's last token, (B, V), and the state.

    attention_mask: (B, L), for prompts of different lengths, padded on either side. state: a state that the prompts
    continue; it is consumed. chunk: tokens of a row read at a time; None reads all at once. The result does not depend
    on it, up to rounding. If states have a fixed size, memory depends on the chunk and not on the prompt.
    Raises UnsupportedInputError for empty prompts, ConfigError for a chunk that is not a positive integer.
    """
    chunk = None if chunk is None else whole("chunk", chunk, least=1)
    lengths = prompt_lengths(input_ids, attention_mask, state)
    longest = int(lengths.max())
    if attention_mask is not None:
        input_ids = Alignment.of(attention_mask).gather(input_ids)
    step = longest if chunk is None else chunk
    logits = None
    with fixed_weights(model) if longest > step else nullcontext():
        for start in range(0, longest, step):
            here = slice(start, min(start + step, longest))
            ids, rows = input_ids[:, here], Rows(lengths).within(here)
            mask = None if attention_mask is None else rows.mask(ids.shape[1])
            output = model(ids, mask, state=state, return_state=True, logits_to_keep=1)
            state, now = output.state, output.logits[:, -1]
            # A row that ended in an earlier chunk keeps its logits from there.
            logits = now if logits is None else torch.where((rows.lengths > 0)[:, None], now, logits)
    assert logits is not None
    assert state is not None
    return logits, state


def prompt_lengths(input_ids: Tensor, attention_mask: Tensor | None, state: State | None) -> Tensor:
    """(B,) real tokens of each row. Raises UnsupportedInputError for arguments that do not fit, and for empty rows."""
    if not isinstance(input_ids, Tensor) or input_ids.dim() != 2 or 0 in input_ids.shape or not _integers(input_ids):
        hint = "" if isinstance(input_ids, Tensor) else " Of a text: torch.tensor([load_tokenizer(path).encode(text)])."
        raise UnsupportedInputError(
            f"a prompt is (B, L) integers with at least one token per row; got {describe(input_ids)}.{hint}"
        )
    if not isinstance(state, State | None):
        raise UnsupportedInputError(
            f"state must be what a call of the model with return_state=True returned; got {describe(state)}."
        )
    if attention_mask is None:
        return torch.full(input_ids.shape[:1], input_ids.shape[1], device=input_ids.device)
    if not isinstance(attention_mask, Tensor) or attention_mask.shape != input_ids.shape:
        raise UnsupportedInputError(
            f"the attention mask {describe(attention_mask)} must have the prompt's shape {describe(input_ids)}."
        )
    lengths = (attention_mask != 0).sum(1)
    empty = (lengths == 0).nonzero().flatten().tolist()
    if empty:
        raise UnsupportedInputError(f"rows {empty} of the prompt are empty.")
    return lengths


def _integers(tensor: Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)
