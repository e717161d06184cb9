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
    """The default task of a model that is for one as it is; None of one that must be changed for its tasks."""
    for name in model.tasks[:1]:
        if model.for_task(name) == model:
            return TASKS.get(name).load().parse({"type": name})
    return None


def architecture_of(model: ModelConfig) -> str | None:
    """The class of ``integrations.huggingface`` that holds the model, its task's; None where none does."""
    task = task_of(model)
    return None if task is None else task.architecture(model)
