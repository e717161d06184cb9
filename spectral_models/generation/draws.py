"""Sequences of independently drawn tokens; :mod:`beams` is the alternative."""

from __future__ import annotations

import torch
from torch import Tensor

from spectral_models.generation.settings import Settings


class Draws:
    """Sequences that each grow by one drawn token a step, until a stop token."""

    def __init__(self, rows: int, settings: Settings, generator: torch.Generator | None, device: torch.device) -> None:
        self.settings = settings
        self.generator = generator
        self.stops = torch.tensor(settings.stop_tokens, dtype=torch.long, device=device)
        self.stopped = torch.zeros(rows, dtype=torch.bool, device=device)
        self.drawn: list[Tensor] = []

    @property
    def done(self) -> bool:
        return len(self.drawn) >= self.settings.max_new_tokens or bool(self.stopped.all())

    def advance(self, logits: Tensor) -> tuple[Tensor, None]:
        """One step: the next token of each sequence (B,), from its logits (B, V)."""
        drawn = self.settings.sampling.draw(logits, self.generator)
        tokens = torch.where(self.stopped, self.settings.pad_token_id, drawn)
        self.drawn.append(tokens)
        self.stopped = self.stopped | torch.isin(tokens, self.stops)
        return tokens, None

    def sequences(self, count: int) -> Tensor:
        """All sequences, ``count`` for each prompt: (B, N), padded after a stop token."""
        return torch.stack(self.drawn, 1)
