"""Models assembled from validated configs: build, train, save, generate."""

import spectral_core  # noqa: F401  # before torch and pydantic, which it keeps importable

# isort: split

from spectral_models.assembly import build_model, list_models, load_config
from spectral_models.checkpoint import load_checkpoint, load_tokenizer, save_checkpoint
from spectral_models.config import BlockConfig, ModelConfig, list_blocks
from spectral_models.errors import CheckpointError
from spectral_models.registries import MODELS

__all__ = [
    "MODELS",
    "BlockConfig",
    "CheckpointError",
    "ModelConfig",
    "build_model",
    "list_blocks",
    "list_models",
    "load_checkpoint",
    "load_config",
    "load_tokenizer",
    "save_checkpoint",
]
