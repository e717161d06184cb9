"""The registry of model variants."""

from __future__ import annotations

from spectral_core.plugins import HOST
from spectral_core.registry import Registry
from spectral_core.version import __version__
from spectral_models import builtin, hookspecs
from spectral_models.config import ModelConfig

MODELS: Registry[ModelConfig] = HOST.family(
    "spectral_register_models", specs=hookspecs, builtin=builtin, version=__version__
).registry("model", ModelConfig)
