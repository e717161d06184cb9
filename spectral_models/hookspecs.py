"""The hook of this package."""

from __future__ import annotations

from spectral_core.plugins import Registrar, hookspec


@hookspec
def spectral_register_models(register: Registrar) -> None:
    """Register model variants: ``register("model", "acme/name", "acme.models:Config", summary="...")``.

    The config derives from :class:`spectral_models.ModelConfig` and its ``build()`` returns the module.
    """
