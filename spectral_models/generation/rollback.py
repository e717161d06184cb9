"""A decoding state whose last tokens can be taken back."""

from __future__ import annotations

import torch
from torch import Tensor

from spectral_core import StateError
from spectral_layers import State

MOST_PENDING = 32
"""Pending tokens at which a caller reads them for good, before it reads on ahead."""


class Rollback:
    """The state of a text, of which the tokens since the last :meth:`settle` can be taken back.

    The first call after it continues a clone. Taking tokens back returns to the state before that call; the tokens that
    stay are *pending*: the next call reads them in front of its own, so that they need no call of their own
    (docs/decisions/0016-rejected-drafts-are-read-again-with-the-next.md). Nothing is approximated.
    """

    def __init__(self, state: State | None = None) -> None:
        self.state = state
        self.pending: Tensor | None = None
        self._before: State | None = None
        self._since: tuple[Tensor, ...] = ()

    def due(self, ids: Tensor) -> Tensor:
        """What a call reads in order to read ids (B, L): the pending tokens, then these."""
        return ids if self.pending is None else torch.cat([self.pending, ids], 1)

    def begun(self) -> State | None:
        """The state for a call whose tokens may be taken back."""
        if not self._since and self.state is not None:
            self._before = self.state.clone()
        return self.state

    def take(self, state: State | None, read: Tensor) -> None:
        """The state that the call returned, and the tokens (B, L) that it read, pending ones included."""
        self.state, self.pending = state, None
        self._since = (*self._since, read)

    def settle(self, back: int = 0) -> None:
        """Take back so many of the last tokens, and keep the others for good.

        Raises StateError if fewer were read since the last call of this method.
        """
        before, since = (self._before, torch.cat(self._since, 1)) if self._since else (self.state, self.pending)
        most = 0 if since is None else since.shape[1]
        if not 0 <= back <= most:
            raise StateError(f"cannot take back {back} tokens: {most} were read since the others were kept for good.")
        if back:
            assert since is not None
            self.state, self.pending = before, since[:, : most - back]
        self._before, self._since = None, ()
