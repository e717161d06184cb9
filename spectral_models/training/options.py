"""How a run trains: optimiser, schedule, evaluations, checkpoints."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from spectral_core.config import Config, Length, Scale, Weight, Width
from spectral_models.training.lora import LoraConfig

_Momentum = Annotated[float, Field(ge=0.0, lt=1.0)]
BY_TOTAL = ("cosine", "linear")
"""Schedules whose rate at every step depends on the number of all steps."""


def _share_or_steps(span: float) -> float:
    if span > 1 and not span.is_integer():
        raise ValueError("is a share of the steps up to 1, or a whole number of steps")
    return span


_Span = Annotated[float, Field(ge=0.0, le=1 << 32), AfterValidator(_share_or_steps)]


class TrainingConfig(Config):
    """Optimiser, schedule and bookkeeping of a run. Gradients are clipped; only linear and embedding weights decay."""

    steps: Length = 500
    """Optimiser steps."""
    batch_size: Length = 16
    """Sequences or examples per step over all processes and accumulated batches."""
    accumulation: Length = 1
    """Batches whose gradients are summed into one step."""
    optimizer: Literal["adamw", "muon", "adafactor", "adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit"] = "adamw"
    """muon: torch's, for the weights of linear layers inside blocks, its update scaled to the RMS of AdamW's; AdamW for
    the rest. adafactor has no momentum. 8bit and paged: AdamW of bitsandbytes, which must be installed."""
    learning_rate: Scale = 2e-3
    schedule: Literal["cosine", "linear", "warmup_stable_decay", "constant"] = "cosine"
    """How the rate goes on after the warm-up: down to final_rate until the last step, or at learning_rate. With
    warmup_stable_decay it stays at learning_rate until the cool-down, which is linear."""
    warmup: _Span = Field(default_factory=lambda values: 0.1 if values.get("schedule") in BY_TOTAL else 20)
    """Steps over which the rate rises to learning_rate, from 0 (from final_rate with linear and warmup_stable_decay): a
    share of all steps up to 1, or their number. By default 0.1 for cosine and linear; else 20 steps, so that a run can
    be resumed with more steps."""
    cooldown: _Span = 0.2
    """Steps over which warmup_stable_decay falls to final_rate at the end: a share of all steps, or their number."""
    final_rate: float = Field(default=0.1, ge=0.0, le=1.0)
    """Where the schedule ends, relative to learning_rate."""
    rates: dict[str, Scale] = Field(default={})
    """Factors on learning_rate by patterns of parameters' names: ``{"frontend.*": 0.1}``. The last match counts."""
    freeze: tuple[str, ...] = Field(default=(), max_length=1 << 10)
    """Patterns of the names of parameters that stay as they begin: ``["frontend.*", "blocks.0.*"]``."""
    lora: LoraConfig | None = None
    """Train low-rank adapters of linear layers, not their weights; for runs that begin from a checkpoint."""
    weight_decay: Weight = 0.1
    betas: tuple[_Momentum, _Momentum] = (0.9, 0.95)
    """Of AdamW. Muon's momentum is 0.95."""
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of a label's weight that is spread over all labels; for classifiers."""
    clip: Scale = 1.0
    """Largest norm of the gradient."""
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    """Autocast of matrix products; parameters, transforms and states stay in float32 or above. fp16 needs a GPU."""
    gradient_checkpointing: bool = False
    """Recompute blocks in the backward pass instead of storing their activations."""
    ema: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Decay of an exponential moving average of the weights, 0.999 say, which is evaluated and saved in their place; in
    the first steps (1 + n) / (10 + n) if that is smaller."""
    eval_every: Length = 100
    """Steps between evaluations on held-out data."""
    best: bool = False
    """Keep the weights of the best evaluation, by the task's first held-out number, instead of the last weights."""
    patience: Length | None = None
    """Stop after so many evaluations in a row that are no better than the best; the best weights are kept."""
    save_every: Length = 100
    """Steps between checkpoints."""
    keep: Width = Field(default=2, ge=2)
    """Checkpoints kept; at least two, so that one is complete while another is written."""
    log_every: Length = 10
    trackers: tuple[str, ...] = Field(default=("tensorboard",), max_length=64)
    """Where numbers are logged besides the run's directory: TensorBoard (in logs/) and any that transformers reports
    to, as wandb, mlflow, trackio. Each must be installed, and reads its own environment variables."""
    seed: int = Field(default=0, ge=0, lt=1 << 32)

    @property
    def keeps_best(self) -> bool:
        return self.best or self.patience is not None

    @property
    def warmup_steps(self) -> int:
        return self._number(self.warmup)

    @property
    def cooldown_steps(self) -> int:
        """Steps over which the rate falls: the cool-down of warmup_stable_decay, all after the warm-up of linear."""
        return self._number(self.cooldown) if self.schedule == "warmup_stable_decay" else self.steps - self.warmup_steps

    def _number(self, span: float) -> int:
        return round(span * self.steps if span <= 1 else span)

    @model_validator(mode="after")
    def _has_room(self) -> TrainingConfig:
        spans = {"warmup": self.warmup_steps}
        if self.schedule == "warmup_stable_decay":
            spans["cooldown"] = self.cooldown_steps
        if sum(spans.values()) > self.steps:
            needed = " and ".join(f"a {name} of {steps} steps" for name, steps in spans.items())
            raise ValueError(
                f"training.steps {self.steps} has no room for {needed}: set training.{' or training.'.join(spans)}"
            )
        return self
