"""The base of all model variants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from spectral_layers.entry import Entered

if TYPE_CHECKING:
    from spectral_models.config import ModelConfig


class SpectralModel(Entered):
    """A model that knows the config it was built from; checkpoints are its weights and that config.

    earlier_names: what weights were called in checkpoints of before, and are called now.
    """

    earlier_names: ClassVar[Mapping[str, str]] = {}

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    def example_source(self, batch: int) -> tuple[Tensor, ...]:
        """What a decoder's call takes in front of its tokens, for checks: nothing, or an example of a source."""
        return ()
