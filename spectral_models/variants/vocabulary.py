"""What the configs of models over a vocabulary share."""

from __future__ import annotations

from spectral_core.config import Config, Length, Scale, Width
from spectral_layers.frontends.tokens import TokensConfig


class VocabularyConfig(Config):
    """Token ids, and what the first block reads of them."""

    vocab_size: Length = 256
    """Token ids run from 0 to vocab_size - 1."""
    embed_dim: Width | None = None
    """Width of the embedding, narrower to save parameters; a projection follows. Null takes hidden_dim."""
    embed_scale: Scale | None = None
    """The first block reads this times the embeddings. Null takes the root of hidden_dim: tokens stay apart behind the
    first layers. With 1 small models learn late to recall."""

    def tokens(self) -> TokensConfig:
        return TokensConfig(vocab_size=self.vocab_size, embed_dim=self.embed_dim, embed_scale=self.embed_scale)
