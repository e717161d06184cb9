"""The text encoder: embeddings of tokens and of texts; optionally logits of masked tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from pydantic import model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from spectral_core import UnsupportedInputError
from spectral_core.config import Length, problem
from spectral_layers.entry import entry
from spectral_layers.frontends.base import Modality
from spectral_layers.frontends.tokens import Tokens
from spectral_layers.rows import aligned
from spectral_models.block import NORMS
from spectral_models.config import ModelConfig
from spectral_models.inputs import TokenInput
from spectral_models.loss import IGNORE, StepLoss, check_labels, token_nats
from spectral_models.variants.encoding import Encoder, EncoderConfig, EncoderOutput
from spectral_models.variants.vocabulary import VocabularyConfig


class TextEncoder(Encoder):
    """Embedding and position, blocks, norm, pooling; with ``masked_lm`` a head over the vocabulary."""

    config: TextEncoderConfig
    frontend: Tokens

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__(config, config.tokens())
        self.head = MaskedHead(config) if config.masked_lm else None

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> EncoderOutput:
        """input_ids: (B, L) integers below vocab_size, or (B, L, embed_dim) embeddings in their place.

        attention_mask: (B, L), nonzero at real tokens.

        Padding may be on either side and does not affect the output; each row has at least one token. Raises
        UnsupportedInputError for ids out of range, empty rows and rows over a declared limit.
        """
        output = self._encoded(input_ids, attention_mask)
        if self.head is not None:
            output.logits = self.head(output.hidden, self.frontend.logits)
        return output

    def input_specs(self) -> tuple[TokenInput, ...]:
        spec = TokenInput(
            "input_ids",
            masked=True,
            vocab_size=self.config.vocab_size,
            length_limit=self.length_limit,
            max_length=self.config.max_length,
        )
        return (spec,)

    def outputs(self) -> tuple[str, ...]:
        return super().outputs() if self.head is None else (*super().outputs(), "logits")

    @entry
    def loss(
        self,
        input_ids: Tensor,
        labels: Tensor,
        attention_mask: Tensor | None = None,
        *,
        step_count: Tensor | int | None = None,
    ) -> StepLoss:
        """Cross-entropy at masked tokens, the only ones whose logits are computed.

        labels: (B, L), the original tokens at masked positions and IGNORE (-100) elsewhere; labels at padding are
        ignored too. step_count: see :meth:`StepLoss.of`. Raises UnsupportedInputError without a head, and for labels
        that do not fit.
        """
        if self.head is None:
            raise UnsupportedInputError("this encoder has no head over its vocabulary. Build it with masked_lm: true.")
        check_labels(labels, input_ids.shape[:2], self.config.vocab_size)
        output = self._encoded(input_ids, attention_mask)
        if output.mask is not None:
            labels = labels.where(output.mask, IGNORE)
        masked = labels != IGNORE
        head = partial(self.head, tied=self.frontend.logits)
        nats = token_nats(output.hidden[masked], labels[masked], head, vocab_size=self.config.vocab_size)
        report = output.losses, output.metrics
        return StepLoss.of(nats, masked.sum(), *report, step_count, partial(head, output.hidden)) + output

    def _encoded(self, input_ids: Tensor, attention_mask: Tensor | None) -> EncoderOutput:
        if attention_mask is None:
            return self.encode(input_ids)
        input_ids, alignment = aligned(input_ids, attention_mask, name="input_ids")
        output = self.encode(input_ids, alignment.rows.lengths)
        output.hidden = alignment.scatter(output.hidden)
        output.hidden_states = {name: alignment.scatter(x) for name, x in output.hidden_states.items()}
        output.mask = attention_mask != 0
        return output


class MaskedHead(nn.Module):
    """logits = E norm(gelu(W x + b)) + c, E the transpose of the embedding. (B, L, D) -> (B, L, V).

    Devlin, Chang, Lee & Toutanova, "BERT: pre-training of deep bidirectional transformers", 2019.
    """

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.proj = nn.Linear(config.hidden_dim, config.hidden_dim)
        self.norm = NORMS[config.blocks[-1].norm](config.hidden_dim)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, x: Tensor, tied: Callable[[Tensor], Tensor]) -> Tensor:
        """tied: multiplies by E. A function, since offloading hooks would move a module's weights like any tensor."""
        return tied(self.norm(F.gelu(self.proj(x)))) + self.bias


class TextEncoderConfig(VocabularyConfig, EncoderConfig):
    """Text to embeddings of tokens and of texts; optionally with a masked-language-model head."""

    modality: ClassVar[Modality] = "text"
    type: Literal["encoder"] = "encoder"
    max_length: Length | None = None
    """Tokens of a text that commands read; training sets it to that of its data. Null reads as many as the parts can
    take. Input tensors are never cut."""
    masked_lm: bool = False
    """Add a head over the vocabulary, for training on masked tokens."""
    causal: bool = False
    """Features at t depend on tokens up to t only, as in a language model, whose weights then fit. The defaults are a
    language model's too: the block ``hybrid``, no position; ``pooling`` is ``last``."""

    @model_validator(mode="before")
    @classmethod
    def _causal_defaults(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or data.get("causal") is not True:
            return data
        block = {} if data.get("layers") is not None else {"block": "hybrid"}
        return {"position": "none", "pooling": "last", **block, **data}

    @model_validator(mode="after")
    def _sees_what_it_needs(self) -> TextEncoderConfig:
        if self.causal and self.masked_lm:
            raise ValueError("masked_lm needs both sides of a token, and a causal encoder sees one; set one to false")
        if self.causal and self.pooling == "cls":
            raise problem(("pooling",), "cls stands in front of the row, where a causal encoder sees nothing of it.")
        return self

    @property
    def direction(self) -> Literal["causal", "bidirectional"]:
        return "causal" if self.causal else "bidirectional"

    @property
    def tasks(self) -> tuple[str, ...]:
        return (*(() if self.causal else ("masked_lm",)), *super().tasks, "token_classification")

    def for_task(self, task: str) -> ModelConfig:
        """For tasks with labels the head over the vocabulary, which would get no gradient, is left out."""
        changed = self.model_copy(update={"masked_lm": task == "masked_lm"})
        return changed if changed.masked_lm else super(TextEncoderConfig, changed).for_task(task)

    def with_data(self, *, max_length: int | None = None, **_: Any) -> TextEncoderConfig:
        return self.model_copy(update={"max_length": max_length or self.max_length})

    def build(self) -> TextEncoder:
        return TextEncoder(self)
