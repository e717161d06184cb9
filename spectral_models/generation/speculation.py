"""Speculative decoding: a draft of several tokens is verified in one call of the model."""

from __future__ import annotations

import torch
from torch import Tensor

from spectral_layers import State
from spectral_models.generation.drafts import Drafter
from spectral_models.generation.prefill import CausalModel, prefill
from spectral_models.generation.rollback import MOST_PENDING, Rollback

_WORTH = 3.0
"""Tokens for which a draft pays: a call of a few tokens takes as long as some three calls of one token."""
_MEMORY = 0.8
_PAUSES = 4, 64
"""The shortest and the longest, in tokens."""


class Speculation:
    """Reads the tokens of one text, and ahead of them where a draft says how it goes on.

    Logits after drafted tokens are returned as soon as these are read; a token that was drafted otherwise takes back
    the rest of the draft. So whoever draws tokens, greedily or at random, gets the logits of reading them one by one,
    up to rounding, and a draft changes nothing but the time.

    Where drafts have lately given less than three tokens on average, the next tokens are read singly: a pause, twice as
    long each time, until a draft gives more again. So a text that cannot be drafted costs little.

    Leviathan, Kalman & Matias, "Fast inference from transformers via speculative decoding", 2023.
    """

    def __init__(
        self,
        model: CausalModel,
        drafter: Drafter | None,
        text: Tensor | None = None,
        state: State | None = None,
        *,
        most: int | None = None,
    ) -> None:
        """text: (1, L), read before, and the state after it. most: tokens that the text may have; None for no limit.

        Without a drafter each token is read by itself.
        """
        self.model = model
        self.drafter = drafter
        self.most = most
        self._text = torch.empty(1, 0, dtype=torch.long) if text is None else text
        self._rollback = Rollback(state)
        self._draft = self._text[:, :0]
        self._accepted = 0
        self._logits = torch.empty(0)
        self._gain = 2 * _WORTH
        self._wait = self._pause = 0

    @property
    def empty(self) -> bool:
        return self._rollback.state is None

    def read(self, tokens: Tensor) -> Tensor:
        """The logits after the next tokens of the text: (1, N) → (1, V).

        Raises UnsupportedInputError, and leaves the text as it was, if the model cannot read so many.
        """
        offered = self._draft.shape[1]
        if tokens.shape[1] == 1 and self._accepted < offered and bool(tokens == self._draft[:, self._accepted]):
            self._accepted += 1
            return self._logits[:, self._accepted]
        if offered:
            self._settle()
        text = self._text if self.drafter is None else torch.cat([self._text, tokens], 1)
        rollback, most = self._rollback, self._next_length(text.shape[1])
        if tokens.shape[1] > 1 or rollback.state is None:
            ids = rollback.due(tokens)
            logits, after = prefill(self.model, ids, state=rollback.state)
            rollback.take(after, ids)
            rollback.settle()
            self._text = text
            return logits
        if self.drafter is not None and most > 0:
            self._draft = self.drafter.draft(text, most)
        offered = self._draft.shape[1]
        ids = rollback.due(torch.cat([tokens, self._draft], 1))
        state = rollback.begun() if offered else rollback.state
        output = self.model(ids, state=state, return_state=True, logits_to_keep=offered + 1)
        rollback.take(output.state, ids)
        if not offered:
            rollback.settle()
        self._text, self._logits = text, output.logits
        return self._logits[:, 0]

    def _settle(self) -> None:
        """Take back what was drafted otherwise, and learn from it whether to draft."""
        offered, accepted = self._draft.shape[1], self._accepted
        self._rollback.settle(offered - accepted)
        self._text = torch.cat([self._text, self._draft[:, :accepted]], 1)
        self._draft, self._accepted = self._text[:, :0], 0
        self._gain = _MEMORY * self._gain + (1 - _MEMORY) * (accepted + 1)
        shortest, longest = _PAUSES
        self._wait = 0 if self._gain >= _WORTH else min(max(2 * self._wait, shortest), longest)
        self._pause = self._wait

    def _next_length(self, length: int) -> int:
        """Tokens to draft after a text of that length, 0 for none."""
        pending = self._rollback.pending
        if self.drafter is None or self._pause or (pending is not None and pending.shape[1] >= MOST_PENDING):
            self._pause = max(0, self._pause - 1)
            return 0
        return self.drafter.most if self.most is None else min(self.drafter.most, self.most - length)
