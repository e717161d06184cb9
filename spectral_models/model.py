"""The base of all model variants."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from spectral_models.config import ModelConfig


class SpectralModel(nn.Module):
    """A model that knows the config it was built from; checkpoints are its weights and that config."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
