"""The result of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spectral_models.model import SpectralModel
from spectral_models.tasks.task import Task


@dataclass(frozen=True)
class TrainingResult:
    """A trained model and its numbers.

    model: in eval mode. history: the log. judged: the model's held-out numbers, by name. step: after which it had these
    weights, the last step or that of the best evaluation. The numbers of metrics.json are attributes too:
    ``result.accuracy``, ``result.bits_per_byte``.
    """

    model: SpectralModel
    history: list[dict[str, Any]]
    directory: Path
    task: Task
    judged: dict[str, float]
    step: int

    def __getattr__(self, name: str) -> Any:
        metrics = {} if name.startswith("_") else self.task.metrics(self.judged)
        if name not in metrics:
            raise AttributeError(f"a training result has no {name!r}; its numbers: {', '.join(metrics)}")
        return metrics[name]

    def report(self) -> str:
        """The held-out numbers for people, the main one first."""
        (name, value), *others, (_, what) = self.task.lines(self.judged)
        return (
            f"held-out {name:<15}  {value}"
            + "".join(f"; {other} {number}" for other, number in others)
            + f"  on {what}"
            + (f"\nbest evaluation         step {self.step}" if "best_step" in self.history[-1] else "")
        )
