"""A text that a user and the model extend in turns; each token is computed once."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from spectral_layers import State
from spectral_models.generation.prefill import CausalModel, prefill
from spectral_models.generation.sampling import Sampling


class Session:
    """The decoding state of one text, and the tokens at its end that the model has not read yet."""

    def __init__(self, model: CausalModel, *, sampling: Sampling, generator: torch.Generator | None = None) -> None:
        """generator: for reproducible sampling. The model should be in eval mode, since dropout is not disabled."""
        self.model = model
        self.sampling = sampling
        self.generator = generator
        self._state: State | None = None
        self._unread: list[int] = []
        self._seen: set[int] = set()

    @property
    def empty(self) -> bool:
        return self._state is None and not self._unread

    def append(self, tokens: Iterable[int]) -> None:
        """Append tokens to the text; the next draw reads them."""
        self._unread.extend(tokens)

    @torch.no_grad()
    def draw(self) -> int:
        """Draw the next token and append it to the text, which must not be empty.

        Raises UnsupportedInputError, and leaves the text unchanged, if it would exceed the model's limit.
        """
        assert self._unread, "an empty text has no next token"
        logits, self._state = prefill(self.model, torch.tensor([self._unread]), state=self._state)
        self._seen.update(self._unread)
        seen = torch.zeros_like(logits, dtype=torch.bool)
        seen[0, list(self._seen)] = True
        token = int(self.sampling.draw(self.sampling.penalised(logits, seen), self.generator))
        self._unread = [token]
        return token
