"""Training on Hugging Face Trainer. Run configs are light; :mod:`.run` needs the ``train`` extra."""

from spectral_models.training.config import RunConfig, load_run
from spectral_models.training.options import TrainingConfig

__all__ = ["RunConfig", "TrainingConfig", "load_run"]
