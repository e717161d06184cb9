"""From logits to the next token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spectral_models.arguments import real, whole
from spectral_models.errors import not_numbers

_FLOAT32 = torch.finfo(torch.float32)


@dataclass(frozen=True)
class Sampling:
    """Draws the next token.

    temperature: 0 takes the likeliest token. top_k: only the k likeliest. top_p: only the smallest set of likeliest
    tokens with at least this probability. repetition_penalty: divides positive logits of tokens that occurred before,
    and multiplies negative ones; 1 has no effect (Keskar et al., "CTRL", 2019). Applied in the order penalty,
    temperature, top_k, top_p.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        """Raises ConfigError for values of another type or out of range."""
        checked = {
            "temperature": real("temperature", self.temperature, least=0),
            "top_k": None if self.top_k is None else whole("top_k", self.top_k, least=1),
            "top_p": None if self.top_p is None else real("top_p", self.top_p, above=0, most=1),
            "repetition_penalty": real("repetition_penalty", self.repetition_penalty, above=0),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def penalised(self, logits: Tensor, seen: Tensor) -> Tensor:
        """logits: (B, V). seen: (B, V) bool, tokens that occurred. Returns the logits in float32 with the penalty.

        Raises UnsupportedInputError if a row's largest logit is not finite; -inf marks tokens that cannot occur.
        """
        logits = logits.float()
        if not logits.amax(-1).isfinite().all():
            raise not_numbers("logits")
        if self.repetition_penalty == 1.0:
            return logits
        penalty = _in_float32(self.repetition_penalty)
        penalised = torch.where(logits > 0, logits / penalty, logits * penalty).clamp(_FLOAT32.min, _FLOAT32.max)
        return torch.where(seen & logits.isfinite(), penalised, logits)

    def draw(self, logits: Tensor, generator: torch.Generator | None) -> Tensor:
        """logits: (B, V), penalised. Returns (B,) token ids."""
        if self.temperature == 0:
            return logits.argmax(-1)
        # Relative to the likeliest, so that dividing by a low temperature does not overflow.
        scaled = (logits - logits.amax(-1, keepdim=True)) / _in_float32(self.temperature)
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
            # A token is dropped if the likelier ones reach top_p already; the likeliest always stays.
            beyond = probability.cumsum(-1) - probability >= _in_float32(self.top_p)
            logits = logits.masked_fill(beyond.scatter(-1, order, beyond), -torch.inf)
        return logits


def _in_float32(value: float) -> float:
    """The value clamped to the normal positive numbers of float32, so that it becomes neither 0 nor infinite."""
    return min(max(value, _FLOAT32.tiny), _FLOAT32.max)
