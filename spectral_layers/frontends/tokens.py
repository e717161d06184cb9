"""Embedding of token ids, factorised if it is narrower than the model."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spectral_core.axes import describe
from spectral_core.config import Length, Scale, Width
from spectral_core.errors import UnsupportedInputError
from spectral_kernels.tracing import readable
from spectral_layers.context import LayerContext
from spectral_layers.entry import Entered, entry
from spectral_layers.frontends.base import FrontEnd, FrontEndConfig, FrontEndOutput, Modality
from spectral_layers.rows import Rows

_INITIAL_STD = 0.02
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


class Embedding(nn.Embedding, Entered):
    """An embedding whose transpose can be applied too."""

    @entry
    def transposed(self, x: Tensor) -> Tensor:
        """(..., embed_dim) -> (..., V): inner products with all embeddings."""
        return F.linear(x, self.weight)


class TiedLinear(nn.Linear, Entered):
    """A linear layer without bias whose transpose can be applied too."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    @entry
    def transposed(self, y: Tensor) -> Tensor:
        """(..., outputs) -> (..., inputs): W^T y."""
        return F.linear(y, self.weight.T)


class TokensConfig(FrontEndConfig):
    """Embedding of token ids, factorised if embed_dim is below hidden_dim."""

    modality: ClassVar[Modality] = "text"

    type: Literal["tokens"] = "tokens"
    vocab_size: Length = 256
    """Token ids run from 0 to vocab_size - 1."""
    embed_dim: Width | None = None
    """Width of the embedding; null takes hidden_dim. A projection to hidden_dim follows if it differs."""
    embed_scale: Scale | None = None
    """Factor that multiplies embeddings; null takes sqrt(hidden_dim)."""


class Tokens(FrontEnd[TokensConfig], Entered):
    """x[t] = s P E[id_t], with E (V, embed_dim) and P (D, embed_dim); without P if embed_dim = D.

    (V + D) embed_dim parameters instead of V D. Initial standard deviation of features: 0.02 s. With s = sqrt(D) its
    ratio to the outputs of the first layers is the same at any width; with s = 1 a memory in the second layer could
    not recall tokens (decision 13).
    Lan et al., "ALBERT: a lite BERT for self-supervised learning of language representations", 2020 (P); Vaswani et
    al., "Attention is all you need", 2017 (s).
    """

    bias: ClassVar[None] = None
    """Of the head that the transposed embedding is: none."""

    def setup(self, config: TokensConfig, context: LayerContext) -> None:
        hidden_dim, embed_dim = context.hidden_dim, config.embed_dim or context.hidden_dim
        self.vocab_size, self.embed_dim, self.hidden_dim = config.vocab_size, embed_dim, hidden_dim
        self.embed_scale = config.embed_scale or math.sqrt(hidden_dim)
        self.feature_size = self.embed_scale * _INITIAL_STD
        self.embedding = Embedding(config.vocab_size, embed_dim)
        nn.init.normal_(self.embedding.weight, std=_INITIAL_STD)
        self.proj: TiedLinear | None = None
        if embed_dim != hidden_dim:
            self.proj = TiedLinear(embed_dim, hidden_dim)
            nn.init.normal_(self.proj.weight, std=embed_dim**-0.5)

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> FrontEndOutput:
        """inputs: (B, L) integers from 0 to V - 1, or in their place (B, L, embed_dim) rows as E has them."""
        tensor = isinstance(inputs, Tensor)
        if tensor and inputs.shape[2:] == (self.embed_dim,) and inputs.is_floating_point() and inputs.shape[1]:
            self.check_lengths(inputs[..., 0], lengths)
            return self._features(inputs, lengths)
        if not tensor or inputs.dim() != 2 or inputs.dtype not in _INTEGERS or inputs.shape[1] < 1:
            raise UnsupportedInputError(
                f"input_ids are (B, L) integers with at least one token; got {describe(inputs)}."
                + ("" if tensor else " Make a text a tensor of token ids: torch.tensor([tokenizer.encode(text)]).")
            )
        self.check_lengths(inputs, lengths)
        # If values cannot be read, the embedding itself raises an error.
        if inputs.numel() and readable(inputs):
            low, high = int(inputs.min()), int(inputs.max())
            if low < 0 or high >= self.vocab_size:
                raise UnsupportedInputError(
                    f"token ids run from 0 to {self.vocab_size - 1} (vocab_size {self.vocab_size}); "
                    f"got {low} to {high}. Use the tokenizer the model was made for, or a larger vocab_size."
                )
        return self._features(self.embedding(inputs.long()), lengths)

    def _features(self, x: Tensor, lengths: Tensor | None) -> FrontEndOutput:
        if self.proj is not None:
            x = self.proj(x)
        return FrontEndOutput(self.embed_scale * x, None if lengths is None else Rows(lengths))

    @property
    def weight(self) -> Tensor:
        """(V, D): W in logits = x W^T, as a linear head has it; computed unless it is the embedding's."""
        plain = self.proj is None and isinstance(self.embedding, Embedding)
        weight = self.embedding.weight
        return weight if plain else self.logits(torch.eye(self.hidden_dim).to(weight)).T

    @entry
    def logits(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, V) by the transposed matrices: the head of a model with tied embeddings.

        If an adapter (peft) replaced the embedding or the projection, the adapted matrix is used, the same that merging
        the adapter gives.
        """
        if self.proj is not None:
            x = _transposed(self.proj, x, torch.eye(self.embed_dim).to(x))
        return _transposed(self.embedding, x, torch.arange(self.vocab_size, device=x.device))

    def example(self, batch: int) -> Tensor:
        return torch.randint(self.vocab_size, (batch, 12))


def _transposed(part: nn.Module, x: Tensor, basis: Tensor) -> Tensor:
    """X times the transposed map of the part; of an adapter, computed from its outputs for the rows of ``basis``."""
    product: Tensor = part.transposed(x) if isinstance(part, Embedding | TiedLinear) else F.linear(x, part(basis))
    return product
