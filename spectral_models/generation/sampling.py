"""From logits to the next token, and so to a sequence."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from spectral_core import ConfigError
from spectral_models.errors import not_numbers


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn.

    temperature: 0 takes the likeliest token. top_k: only the k likeliest. top_p: only the smallest set of likeliest
    tokens that holds this probability. repetition_penalty: divides the positive logits of tokens that occurred before
    (multiplies the negative ones); 1 leaves them alone (Keskar et al., "CTRL", 2019). Applied in the order
    penalty, temperature, top_k, top_p.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        allowed = (
            ("temperature", self.temperature, self.temperature >= 0, "at least 0"),
            ("top_k", self.top_k, self.top_k is None or self.top_k >= 1, "at least 1"),
            ("top_p", self.top_p, self.top_p is None or 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("repetition_penalty", self.repetition_penalty, self.repetition_penalty > 0, "above 0"),
        )
        for name, value, good, range_ in allowed:
            if not good:
                raise ConfigError(f"{name} must be {range_}; got {value}.")

    def penalised(self, logits: Tensor, seen: Tensor) -> Tensor:
        """logits: (B, V). seen: (B, V) bool, tokens that occurred. Returns them in float32. NaN is refused."""
        if logits.isnan().any():
            raise not_numbers("logits")
        logits = logits.float()
        if self.repetition_penalty == 1.0:
            return logits
        penalised = torch.where(logits > 0, logits / self.repetition_penalty, logits * self.repetition_penalty)
        return torch.where(seen, penalised, logits)

    def draw(self, logits: Tensor, generator: torch.Generator | None) -> Tensor:
        """logits: (B, V), penalised. Returns (B,) token ids."""
        if self.temperature == 0:
            return logits.argmax(-1)
        # Relative to the likeliest, so that no temperature is too low to divide by; float32 holds none below its least.
        scaled = (logits - logits.amax(-1, keepdim=True)) / max(self.temperature, torch.finfo(torch.float32).tiny)
        return torch.multinomial(self._kept(scaled).softmax(-1), 1, generator=generator)[:, 0]

    def _kept(self, logits: Tensor) -> Tensor:
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            likeliest = logits.topk(self.top_k, -1).indices
            logits = logits.masked_fill(
                torch.ones_like(logits, dtype=torch.bool).scatter(-1, likeliest, False), -torch.inf
            )
        if self.top_p is not None and self.top_p < 1:
            ordered, order = logits.sort(-1, descending=True)
            probability = ordered.softmax(-1)
            # A token goes when those before it hold the mass already; the likeliest always stays.
            beyond = probability.cumsum(-1) - probability >= self.top_p
            logits = logits.masked_fill(beyond.scatter(-1, order, beyond), -torch.inf)
        return logits


class Draws:
    """Sequences each of which grows by one drawn token a step, until it has drawn a stop token."""

    def __init__(
        self,
        rows: int,
        *,
        sampling: Sampling,
        generator: torch.Generator | None,
        max_new_tokens: int,
        stop_tokens: Collection[int],
        pad_token_id: int,
        device: torch.device,
    ) -> None:
        self.sampling = sampling
        self.max_new_tokens = max_new_tokens
        self.pad_token_id = pad_token_id
        self.generator = generator
        self.stops = torch.tensor(sorted(stop_tokens), dtype=torch.long, device=device)
        self.stopped = torch.zeros(rows, dtype=torch.bool, device=device)
        self.drawn: list[Tensor] = []

    @property
    def done(self) -> bool:
        return len(self.drawn) >= self.max_new_tokens or bool(self.stopped.all())

    def advance(self, logits: Tensor) -> tuple[Tensor, None]:
        """One step: the next token of each sequence (B,), by the logits (B, V) of what follows it."""
        tokens = torch.where(self.stopped, self.pad_token_id, self.sampling.draw(logits, self.generator))
        self.drawn.append(tokens)
        self.stopped = self.stopped | torch.isin(tokens, self.stops)
        return tokens, None

    def sequences(self, count: int) -> Tensor:
        """All of them, ``count`` for each prompt: (B, N), with padding behind a stop token."""
        return torch.stack(self.drawn, 1)
