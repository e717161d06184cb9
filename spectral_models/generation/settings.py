"""The validated settings of generation."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from spectral_core import ConfigError
from spectral_models.arguments import real, whole
from spectral_models.generation.sampling import Sampling

MOST_NEW_TOKENS = 1 << 24
_MOST_ROWS = 1 << 20
_MOST_TOKENS = 1 << 26  # of all beams together, whose memory is allocated at the start


@dataclass(frozen=True, kw_only=True)
class Settings:
    """See :func:`spectral_models.generation.generate`. Raises ConfigError for other types and ranges."""

    sampling: Sampling
    max_new_tokens: int
    num_beams: int
    length_penalty: float
    early_stopping: bool
    num_return_sequences: int
    stop_tokens: Collection[int]
    pad_token_id: int
    prompt_lookup_num_tokens: int | None = None
    assistant: object = None

    def __post_init__(self) -> None:
        for name, least, most in (
            ("max_new_tokens", 0, MOST_NEW_TOKENS),
            ("num_beams", 1, _MOST_ROWS),
            ("num_return_sequences", 1, _MOST_ROWS),
            ("pad_token_id", None, None),
            ("prompt_lookup_num_tokens", 1, MOST_NEW_TOKENS),
        ):
            if name != "prompt_lookup_num_tokens" or self.prompt_lookup_num_tokens is not None:
                object.__setattr__(self, name, whole(name, getattr(self, name), least=least, most=most))
        # Sequences of n tokens are scored by n^length_penalty, which float32 must hold.
        object.__setattr__(self, "length_penalty", real("length_penalty", self.length_penalty, least=-5, most=5))
        object.__setattr__(self, "stop_tokens", _tokens("stop_tokens", self.stop_tokens))
        if not isinstance(self.early_stopping, bool):
            raise ConfigError(f"early_stopping must be True or False; got {self.early_stopping!r}.")
        self._check_counts()

    @property
    def copies(self) -> int:
        """Sequences that are computed for each prompt."""
        return max(self.num_beams, self.num_return_sequences)

    @property
    def assisted(self) -> bool:
        """Whether drafts are verified, of which a batch of several rows would accept different lengths."""
        return self.prompt_lookup_num_tokens is not None or self.assistant is not None

    def check_batch(self, rows: int) -> None:
        """Raise ConfigError if that many prompts need too much memory, or cannot be drafted together."""
        if self.assisted and rows * self.copies > 1:
            raise ConfigError(
                f"assistant and prompt_lookup_num_tokens decode one sequence at a time; got {rows} prompts with "
                f"num_beams {self.num_beams} and num_return_sequences {self.num_return_sequences}. Leave them out, or "
                "call generate for each prompt."
            )
        tokens = rows * self.num_beams * self.max_new_tokens if self.num_beams > 1 else 0
        if rows * self.copies > _MOST_ROWS or tokens > _MOST_TOKENS:
            raise ConfigError(
                f"{rows} prompts with num_beams {self.num_beams}, num_return_sequences {self.num_return_sequences} and "
                f"max_new_tokens {self.max_new_tokens} are more than fit: {_MOST_ROWS:,} sequences at a time, and "
                f"{_MOST_TOKENS:,} tokens of beams. Ask for fewer, or give fewer prompts at a time."
            )

    def check_vocabulary(self, size: int) -> None:
        """Raise ConfigError for tokens outside of a vocabulary of that size."""
        for name, token in (("pad_token_id", self.pad_token_id), *(("stop_tokens", stop) for stop in self.stop_tokens)):
            if not 0 <= token < size:
                raise ConfigError(f"{name} must be a token, from 0 to {size - 1}; got {token}.")

    def _check_counts(self) -> None:
        """Raise ConfigError for numbers of beams and of sequences that contradict each other."""
        temperature = self.sampling.temperature
        if self.num_beams == 1:
            if self.num_return_sequences > 1 and temperature == 0:
                raise ConfigError(
                    f"num_return_sequences is {self.num_return_sequences}, and the likeliest tokens make one sequence. "
                    f"Sample (temperature above 0), or search with num_beams of {self.num_return_sequences} or more."
                )
            return
        if self.num_return_sequences > self.num_beams:
            raise ConfigError(
                f"num_return_sequences is {self.num_return_sequences}, and num_beams {self.num_beams} beams end in "
                f"{self.num_beams} sequences. Ask for fewer, or search with num_beams {self.num_return_sequences}."
            )
        if temperature != 0:
            raise ConfigError(
                f"num_beams {self.num_beams} searches for the likeliest sequences and draws nothing; got temperature "
                f"{temperature}. Leave temperature 0, or num_beams 1."
            )


def _tokens(name: str, given: Any) -> tuple[int, ...]:
    """Token ids, each once and in order."""
    if isinstance(given, str | bytes):
        raise ConfigError(f"{name} must be token ids, as in [0]; got the text {given!r}. A tokenizer encodes it.")
    try:
        each = list(given)
    except TypeError:
        raise ConfigError(f"{name} must be a list or set of token ids, as in [0]; got {given!r}.") from None
    return tuple(sorted({whole(name, token) for token in each}))
