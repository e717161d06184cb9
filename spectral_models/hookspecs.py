"""The hook of this package."""

from __future__ import annotations

from spectral_core.plugins import Registrar, hookspec


@hookspec
def spectral_register_models(register: Registrar) -> None:
    """Register model variants and tasks: ``register("model", "acme/name", "acme.models:Config", summary="...")``.

    model: a :class:`spectral_models.ModelConfig`, whose ``build()`` returns a :class:`spectral_models.SpectralModel`.
    task: a :class:`spectral_models.tasks.TaskConfig`, whose ``load(model, data)`` returns a
    :class:`spectral_models.tasks.task.Task`.
    """
