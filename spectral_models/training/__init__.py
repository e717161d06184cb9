"""Training on Hugging Face Trainer: run configs, the trainer, resuming, learning curves."""

from spectral_models.training.config import RunConfig, TrainingConfig, load_run
from spectral_models.training.run import TrainingResult, train

__all__ = ["RunConfig", "TrainingConfig", "TrainingResult", "load_run", "train"]
