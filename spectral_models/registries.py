"""The registries of model variants and of tasks."""

from __future__ import annotations

from spectral_core.plugins import HOST
from spectral_core.registry import Registry
from spectral_core.version import __version__
from spectral_models import builtin, hookspecs
from spectral_models.config import ModelConfig
from spectral_models.tasks.config import TaskConfig

_FAMILY = HOST.family("spectral_register_models", specs=hookspecs, builtin=builtin, version=__version__)
MODELS: Registry[ModelConfig] = _FAMILY.registry("model", ModelConfig)
TASKS: Registry[TaskConfig] = _FAMILY.registry("task", TaskConfig)


def task_of(model: ModelConfig) -> TaskConfig | None:
    """The model's default task; None if :meth:`ModelConfig.for_task` has to change the model for it."""
    for name in model.tasks[:1]:
        if model.for_task(name) == model:
            return TASKS.get(name).load().parse({"type": name})
    return None


def architecture_of(model: ModelConfig) -> str | None:
    """The name of the Hugging Face class of the model's default task; None if there is none."""
    task = task_of(model)
    return None if task is None else task.architecture(model)
