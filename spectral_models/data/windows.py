"""Windows of a sequence of tokens as map-style datasets: random ones for training, consecutive ones for evaluation.

``labels[t]`` is the token after ``input_ids[t]``. The tokens are a 1-D tensor of any integer dtype, converted to int64
window by window, so that a memory-mapped one (``torch.from_file``) stays on disk.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor
from torch.utils.data import Dataset

from spectral_models.errors import DataError
from spectral_models.loss import IGNORE


class RandomWindows(Dataset[dict[str, Tensor]]):
    """``count`` random windows of ``context`` tokens; item i is a function of (seed, i) alone.

    Hence items do not depend on worker, process or order, and a resumed training continues at its item.
    """

    def __init__(self, tokens: Tensor, context: int, count: int, seed: int) -> None:
        require_window(tokens, context)
        if count < 1:
            raise DataError(f"count of windows is {count}; it must be at least 1.")
        self.tokens, self.context, self.count, self.seed = tokens, context, count, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        index = _checked(index, self.count)
        digest = hashlib.sha256(f"{self.seed}\0{index}".encode()).digest()
        start = int.from_bytes(digest[:8], "big") % (len(self.tokens) - self.context)
        window = self.tokens[start : start + self.context + 1].long()
        return {"input_ids": window[:-1].clone(), "labels": window[1:].clone()}


class ContiguousWindows(Dataset[dict[str, Tensor]]):
    """Consecutive windows: every token but the first is a label exactly once.

    The last window is padded on the right with token 0 and label -100; a causal model needs no mask for it.
    text_bytes: size of the text that the labels encode; None if each label is one byte.
    """

    what = "windows"

    def __init__(self, tokens: Tensor, context: int, text_bytes: int | None = None) -> None:
        require_window(tokens, min(context, 1))  # the only window may be shorter
        self.tokens, self.context = tokens, context
        self.text_bytes = len(tokens) - 1 if text_bytes is None else text_bytes

    def __len__(self) -> int:
        return -(-(len(self.tokens) - 1) // self.context)

    def lengths(self) -> Tensor:
        """(N,): ``context`` for each window."""
        return torch.full((len(self),), self.context)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        start = _checked(index, len(self)) * self.context
        window = self.tokens[start : start + self.context + 1].long()
        size = len(window) - 1
        input_ids = torch.zeros(self.context, dtype=torch.long)
        labels = torch.full((self.context,), IGNORE, dtype=torch.long)
        input_ids[:size], labels[:size] = window[:-1], window[1:]
        return {"input_ids": input_ids, "labels": labels}


def require_window(tokens: Tensor, context: int) -> None:
    """Raise DataError unless the tokens are 1-D, integer, and enough for a window of ``context`` and a next token."""
    if context < 1:
        raise DataError(f"context is {context}; it must be at least 1.")
    if tokens.dim() != 1 or tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
        raise DataError(f"tokens are {tokens.dtype} of shape {tuple(tokens.shape)}; a 1-D integer tensor is needed.")
    if len(tokens) <= context:
        raise DataError(
            f"{len(tokens)} tokens are shorter than a window: context {context} needs {context + 1}, one for the last "
            "label. Give more text, or lower context."
        )


def _checked(index: int, count: int) -> int:
    """The index, counted from the start. Raises IndexError, which ends iteration."""
    if not -count <= index < count:
        raise IndexError(f"window {index} of {count}")
    return index % count
