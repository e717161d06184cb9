"""Drafts of how a text goes on, for a model to verify: from the text itself, or from a smaller model."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from spectral_core import ConfigError
from spectral_layers import State
from spectral_models.generation.prefill import prefill
from spectral_models.inputs import TokenInput
from spectral_models.model import SpectralModel

_SHORTEST_MATCH, _LONGEST_MATCH = 4, 32
_TRUST = 4
"""Tokens drafted for each token of a match."""
_MOST_OF_ASSISTANTS = 16
_CONFIDENCE = 0.4


class Drafter(Protocol):
    """Drafts continuations. most: tokens of the longest draft."""

    most: int

    def draft(self, text: Tensor, count: int) -> Tensor:
        """Up to ``count`` tokens that may follow the text: (1, L) → (1, N), N <= count.

        The text of each call begins with that of the call before.
        """
        ...


class PromptLookup:
    """Drafts what followed the text's last tokens where they occurred before, the longest and latest match of all.

    Short matches say little: there is no draft after less than 4 tokens, and otherwise one of at most 4 times as many.
    A draft that runs into the end of the text goes on with its own beginning, so that a text of period p is drafted
    with period p. O(L) a draft. Saxena, "Prompt lookup decoding", 2023.
    """

    def __init__(self, most: int) -> None:
        self.most = most

    def draft(self, text: Tensor, count: int) -> Tensor:
        tokens = text[0]
        ends = torch.arange(tokens.numel() - 1, device=text.device)
        matched = 0
        while matched < min(_LONGEST_MATCH, tokens.numel()):
            longer = ends[ends >= matched]
            longer = longer[tokens[longer - matched] == tokens[-1 - matched]]
            if not longer.numel():
                break
            ends, matched = longer, matched + 1
        if matched < _SHORTEST_MATCH:
            return text[:, :0]
        count = min(count, _TRUST * matched)
        period = tokens.numel() - 1 - int(ends[-1])
        return tokens[-period:].repeat(-(-count // period))[None, :count]


class Assistant:
    """Drafts the likeliest tokens of a smaller model with the same vocabulary, up to the first that it is not sure of.

    It reads each token of the text once, all new ones in one call, and drafts from a clone of its state.
    """

    most = _MOST_OF_ASSISTANTS

    def __init__(self, model: object, vocab_size: int) -> None:
        """vocab_size: of the model that verifies. Raises ConfigError for a model that cannot draft for it."""
        if not (isinstance(model, SpectralModel) and model.streams and model.continues_text):
            name = model.config.type if isinstance(model, SpectralModel) else type(model).__name__
            raise ConfigError(f"assistant must be a language model that keeps a state; got {name}.")
        spec = model.only_input
        assert isinstance(spec, TokenInput)
        if spec.vocab_size != vocab_size:
            raise ConfigError(
                f"assistant has a vocabulary of {spec.vocab_size} tokens, the model one of {vocab_size}. Give an "
                "assistant with the model's tokenizer."
            )
        self.model = model
        self._limit = spec.length_limit
        self._state: State | None = None
        self._read = 0

    def draft(self, text: Tensor, count: int) -> Tensor:
        length = text.shape[1]
        if self._limit is not None and length + count > self._limit:
            return text[:, :0]
        logits, self._state = prefill(self.model, text[:, self._read :], state=self._state)
        self._read = length
        drafted = [text[:, :0]]
        state: State | None = self._state.clone()
        while float(logits.softmax(-1).max()) > _CONFIDENCE:
            drafted.append(logits.argmax(-1, keepdim=True).to(text.dtype))
            if len(drafted) > count:
                break
            output = self.model(drafted[-1], state=state, return_state=True)
            logits, state = output.logits[:, -1], output.state
        return torch.cat(drafted, 1)


def drafter_of(prompt_lookup_num_tokens: int | None, assistant: object, vocab_size: int) -> Drafter | None:
    """The drafter of a text for a model with that vocabulary; None if neither is given. Raises ConfigError."""
    if prompt_lookup_num_tokens is not None and assistant is not None:
        raise ConfigError("assistant and prompt_lookup_num_tokens both draft: give one of them.")
    if assistant is not None:
        return Assistant(assistant, vocab_size)
    return None if prompt_lookup_num_tokens is None else PromptLookup(prompt_lookup_num_tokens)
