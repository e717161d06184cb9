"""What a training run is: a model, data, and how to train."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from spectral_core import ConfigError
from spectral_core.config import Config, OneOf
from spectral_models.assembly import list_models, load_config, read_yaml
from spectral_models.config import ModelConfig, override
from spectral_models.data import DataConfig
from spectral_models.registries import MODELS

_Momentum = Annotated[float, Field(ge=0.0, lt=1.0)]


class TrainingConfig(Config):
    """AdamW with warm-up and cosine decay, gradients clipped; weight decay on linear and embedding weights only."""

    steps: PositiveInt = 500
    """Optimiser steps."""
    batch_size: PositiveInt = 16
    """Sequences per step over all processes and accumulated batches."""
    accumulation: PositiveInt = 1
    """Batches whose gradients are summed into one step."""
    learning_rate: PositiveFloat = 2e-3
    warmup: float = Field(default=0.1, ge=0.0, le=1.0)
    """Share of the steps over which the rate rises to learning_rate."""
    final_rate: float = Field(default=0.1, ge=0.0, le=1.0)
    """Where the cosine ends, relative to learning_rate."""
    weight_decay: NonNegativeFloat = 0.1
    betas: tuple[_Momentum, _Momentum] = (0.9, 0.95)
    clip: PositiveFloat = 1.0
    """Largest norm of the gradient."""
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    """Autocast of matrix products; parameters, transforms and states stay in float32 or above. fp16 needs a GPU."""
    gradient_checkpointing: bool = False
    """Recompute blocks in the backward pass."""
    eval_every: PositiveInt = 100
    """Steps between evaluations on held-out text."""
    save_every: PositiveInt = 100
    """Steps between checkpoints."""
    keep: int = Field(default=2, ge=2)
    """Checkpoints kept; at least two, so that one is whole while another is written."""
    log_every: PositiveInt = 10
    seed: int = Field(default=0, ge=0, lt=1 << 32)


class RunConfig(Config):
    """The file ``spectral train`` reads."""

    model: Annotated[ModelConfig, OneOf(MODELS)]
    """A model config, or the name of a preset."""
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _fits(self) -> RunConfig:
        vocab_size = getattr(self.model, "vocab_size", None)
        if self.model.type != "language_model" or vocab_size is None or vocab_size < 256:
            raise ValueError(
                f"training reads bytes: the model must be a language_model with vocab_size of at least 256; "
                f"got {self.model.type} with {vocab_size}"
            )
        return self


def load_run(source: str | Path | Mapping[str, Any], changes: Mapping[str, Any] | None = None) -> RunConfig:
    """A validated run from a YAML file, a mapping, or a model preset's name with default data and training.

    changes: values at dotted paths, ``{"training.steps": 100}``. In both, ``model`` may name a preset.
    """
    changes = dict(changes or {})
    if isinstance(source, Mapping):
        data = dict(source)
    elif isinstance(source, str) and source in list_models():
        data = {"model": source}
    else:
        path = Path(source)
        if path.suffix not in (".yaml", ".yml", ".json") and not path.is_file():
            raise ConfigError(
                f"{str(source)!r} is neither a run config (.yaml, .json) nor a preset: {', '.join(list_models())}."
            )
        data = read_yaml(path)
    if "model" in changes:
        data["model"] = changes.pop("model")
    model = data.get("model")
    if isinstance(model, str) and model not in MODELS:
        data["model"] = load_config(model).model_dump()
    elif isinstance(model, Mapping) and "type" not in model:
        data["model"] = {"type": "language_model", **model}
    run: RunConfig = RunConfig.parse(override(data, changes))
    return run
