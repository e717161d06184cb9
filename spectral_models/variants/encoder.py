"""The text encoder: tokens in, an embedding of each and of the whole out, and what stands behind masked ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spectral_core import UnsupportedInputError
from spectral_core.config import Length
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

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__(config, config.tokens())
        self.config: TextEncoderConfig
        self.frontend: Tokens
        self.head = MaskedHead(config) if config.masked_lm else None

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> EncoderOutput:
        """input_ids: (B, L) integers below vocab_size, or (B, L, embed_dim) embeddings in their place.

        attention_mask: (B, L), nonzero at real tokens.

        Padding may stand on either side and changes nothing; each row has a token at least. Raises
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
        """How badly the tokens behind masked ones were predicted; at other places there are no logits.

        labels: (B, L), what stood at masked places; IGNORE (-100) at all others, and padding counts for nothing.
        step_count: see :meth:`StepLoss.of`. Raises UnsupportedInputError without a head, and for labels that do not
        fit.
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
        logits = partial(head, output.hidden)
        return StepLoss.of(nats, masked.sum(), output.losses, output.metrics, step_count, logits) + output

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
        """tied: the products with E; no module, which offloading hooks would move as they move tensors."""
        return tied(self.norm(F.gelu(self.proj(x)))) + self.bias


class TextEncoderConfig(VocabularyConfig, EncoderConfig):
    """Text to embeddings, of tokens and of rows, with masked pooling; optionally a masked-language-model head."""

    modality: ClassVar[Modality] = "text"

    type: Literal["encoder"] = "encoder"
    max_length: Length | None = None
    """Tokens of a text that the commands read; training writes its data's here. Null reads all that the parts can take.
    Tensors are not cut."""
    masked_lm: bool = False
    """A head over the vocabulary, for training on masked tokens."""

    @property
    def tasks(self) -> tuple[str, ...]:
        return ("masked_lm", *super().tasks, "token_classification")

    def for_task(self, task: str) -> ModelConfig:
        """For labels without the head over the vocabulary, which would get no gradient."""
        changed = self.model_copy(update={"masked_lm": task == "masked_lm"})
        return changed if changed.masked_lm else super(TextEncoderConfig, changed).for_task(task)

    def with_data(self, *, max_length: int | None = None, **_: Any) -> TextEncoderConfig:
        return self.model_copy(update={"max_length": max_length or self.max_length})

    def build(self) -> TextEncoder:
        return TextEncoder(self)
