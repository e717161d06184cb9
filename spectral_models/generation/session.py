"""A text that a user and the model extend in turns; each token is computed once."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from spectral_models.generation.drafts import Drafter
from spectral_models.generation.prefill import CausalModel
from spectral_models.generation.sampling import Sampling
from spectral_models.generation.speculation import Speculation


class Session:
    """One text, and the tokens at its end that the model has not read yet."""

    def __init__(
        self,
        model: CausalModel,
        *,
        sampling: Sampling,
        generator: torch.Generator | None = None,
        drafter: Drafter | None = None,
    ) -> None:
        """generator: for reproducible sampling. drafter: of this text alone; see :class:`Speculation`.

        The model should be in eval mode, since dropout is not disabled.
        """
        self.sampling = sampling
        self.generator = generator
        self._text = Speculation(model, drafter, most=getattr(model, "length_limit", None))
        self._unread: list[int] = []
        self._seen: set[int] = set()

    @property
    def empty(self) -> bool:
        return self._text.empty and not self._unread

    def append(self, tokens: Iterable[int]) -> None:
        """Append tokens to the text; the next draw reads them."""
        self._unread.extend(tokens)

    @torch.no_grad()
    def draw(self) -> int:
        """Draw the next token and append it to the text, which must not be empty.

        Raises UnsupportedInputError, and leaves the text unchanged, if it would exceed the model's limit.
        """
        assert self._unread, "an empty text has no next token"
        logits = self._text.read(torch.tensor([self._unread]))
        self._seen.update(self._unread)
        seen = torch.zeros_like(logits, dtype=torch.bool)
        seen[0, list(self._seen)] = True
        token = int(self.sampling.draw(self.sampling.penalised(logits, seen), self.generator))
        self._unread = [token]
        return token
