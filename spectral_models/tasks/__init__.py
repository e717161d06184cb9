"""Tasks: what a model is trained for. Each brings a model and data together, with a loss and what is measured."""

from spectral_models.tasks.config import TaskConfig

__all__ = ["TaskConfig"]
