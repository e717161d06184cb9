"""The base of configs of models that embed tokens."""

from __future__ import annotations

from spectral_core.config import Config, Length, Scale, Width
from spectral_layers.frontends.tokens import TokensConfig


class VocabularyConfig(Config):
    """The vocabulary and its embedding."""

    vocab_size: Length = 256
    """Token ids run from 0 to vocab_size - 1."""
    embed_dim: Width | None = None
    """Width of the embedding, narrower to save parameters; a projection follows. Null takes hidden_dim."""
    embed_scale: Scale | None = None
    """Factor on the embeddings. Null takes the square root of hidden_dim, which keeps tokens distinct after the first
    layers; with 1 small models learn recall late."""

    def tokens(self) -> TokensConfig:
        return TokensConfig(vocab_size=self.vocab_size, embed_dim=self.embed_dim, embed_scale=self.embed_scale)
