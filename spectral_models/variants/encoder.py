"""The text encoder: tokens in, an embedding of each and of the whole out, and what stands behind masked ones."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from spectral_layers.frontends.base import Modality
from spectral_layers.frontends.tokens import Tokens, TokensConfig
from spectral_models.block import NORMS
from spectral_models.variants.encoding import Encoder, EncoderConfig, EncoderOutput
from spectral_models.variants.stack import aligned, restored


class TextEncoder(Encoder):
    """Embedding and position, blocks, norm, pooling; with ``masked_lm`` a head over the vocabulary."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__(config, TokensConfig(vocab_size=config.vocab_size, embed_dim=config.embed_dim))
        self.config: TextEncoderConfig
        self.frontend: Tokens
        self.head = MaskedHead(config) if config.masked_lm else None

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> EncoderOutput:
        """input_ids: (B, L) integers below vocab_size. attention_mask: (B, L), nonzero at real tokens.

        Padding may stand on either side and changes nothing; each row has a token at least. Raises
        UnsupportedInputError for ids out of range, empty rows and rows over a declared limit.
        """
        if attention_mask is None:
            output = self.encode(input_ids)
        else:
            input_ids, alignment = aligned(input_ids, attention_mask, name="input_ids")
            output = self.encode(input_ids, alignment.rows.lengths)
            output.hidden = restored(output.hidden, alignment, attention_mask)
            output.mask = attention_mask != 0
        if self.head is not None:
            output.logits = self.head(output.hidden, self.frontend)
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

    def forward(self, x: Tensor, frontend: Tokens) -> Tensor:
        return frontend.logits(self.norm(F.gelu(self.proj(x)))) + self.bias


class TextEncoderConfig(EncoderConfig):
    """Text to embeddings, of tokens and of rows, with masked pooling; optionally a masked-language-model head."""

    modality: ClassVar[Modality] = "text"

    type: Literal["encoder"] = "encoder"
    vocab_size: PositiveInt = 256
    """Token ids run from 0 to vocab_size - 1."""
    embed_dim: PositiveInt | None = None
    """Width of the embedding, narrower to save parameters; a projection follows. Null takes hidden_dim."""
    masked_lm: bool = False
    """A head over the vocabulary, for training on masked tokens."""

    def build(self) -> TextEncoder:
        return TextEncoder(self)
