"""Speculative decoding: a draft of several tokens is verified in one call of the model."""

from __future__ import annotations

import torch
from torch import Tensor

from spectral_layers import State
from spectral_models.generation.drafts import Drafter
from spectral_models.generation.prefill import CausalModel
from spectral_models.generation.rollback import MOST_PENDING, Rollback

_WORTH = 4
"""Accepted tokens that pay for a draft: a call of a few tokens takes as long as three or four of one token."""
_LONGEST_PAUSE = 64


class Speculation:
    """Reads the tokens of one text, and ahead of them where a draft says how it goes on.

    Logits of drafted tokens are returned as soon as these are read; a token that was drafted otherwise takes back the
    rest of the draft. So whoever draws tokens, greedily or at random, gets the logits of reading them one by one, up to
    rounding, and the draft changes nothing but the time.

    The draft after one that was accepted is twice as long. After one of which less than ``_WORTH`` tokens were
    accepted, tokens are read singly, for a while that doubles each time: a text that cannot be drafted costs little.

    Leviathan, Kalman & Matias, "Fast inference from transformers via speculative decoding", 2023.
    """

    def __init__(self, model: CausalModel, drafter: Drafter, text: Tensor, state: State, *, most: int) -> None:
        """text: (1, L), what was read. state: after it. most: tokens that will be read at most."""
        self.model = model
        self.drafter = drafter
        self._text = text
        self._left = most
        self._rollback = Rollback(state)
        self._draft = text[:, :0]
        self._accepted = 0
        self._logits = torch.empty(0)
        self._length = 2 * _WORTH
        self._wait = self._pause = 0

    def read(self, token: Tensor) -> Tensor:
        """The logits after the next token of the text: (1, 1) → (1, V)."""
        self._left -= 1
        if self._accepted < self._draft.shape[1] and bool(token == self._draft[:, self._accepted]):
            self._accepted += 1
            return self._logits[:, self._accepted]
        self._rollback.settle(self._draft.shape[1] - self._accepted)
        self._text = torch.cat([self._text, self._draft[:, : self._accepted], token], 1)
        self._adapt()
        self._draft, self._accepted = self._drafted(), 0
        offered = self._draft.shape[1]
        ids = self._rollback.due(torch.cat([token, self._draft], 1))
        state = self._rollback.begun() if offered else self._rollback.state
        output = self.model(ids, state=state, return_state=True, logits_to_keep=offered + 1)
        self._rollback.take(output.state, ids)
        self._logits = output.logits
        return self._logits[:, 0]

    def _drafted(self) -> Tensor:
        count = min(self._length, self._left, self.drafter.most)
        pending = self._rollback.pending
        if self._pause or count < 1 or (pending is not None and pending.shape[1] >= MOST_PENDING):
            self._pause = max(0, self._pause - 1)
            return self._text[:, :0]
        return self.drafter.draft(self._text, count)

    def _adapt(self) -> None:
        """Choose the length of the next draft, and when it is, by how much of the last one was accepted."""
        offered, accepted = self._draft.shape[1], self._accepted
        if not offered:
            return
        self._length = 2 * offered if accepted == offered else max(accepted, _WORTH)
        self._wait = 0 if accepted >= min(offered, _WORTH) else min(max(2 * self._wait, _WORTH), _LONGEST_PAUSE)
        self._pause = self._wait
