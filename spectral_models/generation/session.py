"""One text that grows by turns: what a user appends, and what the model draws, each token computed once."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from spectral_layers import State
from spectral_models.generation.prefill import CausalModel, prefill
from spectral_models.generation.sampling import Sampling


class Session:
    """The state of one text, and the tokens at its end that the model has not read yet.

    Between two calls the text may grow, or not go on at all: nothing is ever read again.
    """

    def __init__(self, model: CausalModel, *, sampling: Sampling, generator: torch.Generator | None = None) -> None:
        """generator: for reproducible sampling. The model should be in eval mode: dropout would act here too."""
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
        """Let the text go on by these tokens; the next draw reads them."""
        self._unread.extend(tokens)

    @torch.no_grad()
    def draw(self) -> int:
        """The next token, which is part of the text from then on. Needs a text that is not empty.

        Raises UnsupportedInputError where the text grows over the model's limit; it stays as it is.
        """
        assert self._unread, "an empty text has no next token"
        logits, self._state = prefill(self.model, torch.tensor([self._unread]), state=self._state)
        self._seen.update(self._unread)
        seen = torch.zeros_like(logits, dtype=torch.bool)
        seen[0, list(self._seen)] = True
        token = int(self.sampling.draw(self.sampling.penalised(logits, seen), self.generator))
        self._unread = [token]
        return token
