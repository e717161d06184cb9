"""The cases for checks of models and tasks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from spectral_models.assembly import build_model
from spectral_models.config import ModelConfig
from spectral_models.data.config import AnyDataConfig
from spectral_models.loss import StepLoss
from spectral_models.model import SpectralModel
from spectral_models.tasks.config import TaskConfig
from spectral_models.tasks.task import Task


@dataclass(frozen=True)
class ModelCase:
    """A variant to check, as a small config.

    tolerance: allowed difference of outputs that should be equal, in float32, relative to the largest.
    """

    config: ModelConfig
    tolerance: float = 1e-4

    def build(self, **overrides: Any) -> SpectralModel:
        """The model in eval mode, with noise on all parameters: one that is 0 could hide an error."""
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.default_generator.manual_seed(1)
            model = build_model(self.config, **overrides)
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        return model.eval()

    def inputs(self, model: SpectralModel, batch: int, seed: int = 0) -> dict[str, Tensor]:
        """Small random inputs by name."""
        generator = torch.Generator().manual_seed(seed)
        return {spec.name: spec.example(batch, generator) for spec in model.input_specs()}

    def outputs(self, model: SpectralModel, inputs: dict[str, Tensor], mask: Tensor | None = None) -> dict[str, Tensor]:
        """The declared outputs, by name."""
        with torch.no_grad():
            output = model.run(inputs, mask)
        return {name: getattr(output, name) for name in model.outputs()}

    def require_equal(self, what: str, found: Tensor, expected: Tensor) -> None:
        """Raise AssertionError unless two outputs are equal, up to the tolerance relative to the largest value."""
        scale = max(float(expected.abs().max()), 1e-6)
        error = float((found - expected).abs().max()) / scale if found.shape == expected.shape else float("inf")
        if not error <= self.tolerance:
            raise AssertionError(
                f"{self.config.type}: {what}: outputs {tuple(found.shape)} differ from {tuple(expected.shape)} by "
                f"{error:.2g} of the largest value; at most {self.tolerance:g} is rounding."
            )

    def __str__(self) -> str:
        return self.config.type


@dataclass(frozen=True)
class TaskCase:
    """A task to check on a small model and small data, which the caller writes."""

    config: TaskConfig
    model: ModelConfig
    data: AnyDataConfig
    learning_rate: float = 1e-2
    steps: int = 12

    @cached_property
    def task(self) -> Task:
        """The task, with its data read."""
        return self.config.load(self.config.adapted(self.model), self.data)

    def build(self) -> SpectralModel:
        """The task's model, freshly initialised."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            return build_model(self.task.model)

    def __str__(self) -> str:
        return self.config.type


def descent(model: SpectralModel, loss: Callable[[int], StepLoss], *, steps: int, learning_rate: float) -> list[float]:
    """Trains the model with Adam. loss: of each step, by its number. Returns the losses."""
    optimizer = torch.optim.Adam(model.parameters(), learning_rate)
    losses = []
    for step in range(steps):
        value = loss(step).loss
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(float(value.detach()))
    return losses
