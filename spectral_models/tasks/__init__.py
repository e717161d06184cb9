"""Tasks: what a model is trained for. A task has the data, the loss and the measures."""

from spectral_models.tasks.config import TaskConfig

__all__ = ["TaskConfig"]
