"""What a run leaves in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spectral_models.model import SpectralModel
from spectral_models.tasks.task import Task


@dataclass(frozen=True)
class TrainingResult:
    """model: trained, in eval mode. history: everything that was logged. judged: its held-out numbers, by name. step:
    that its weights are of, the best one or the last.

    The numbers of metrics.json are attributes too: ``result.accuracy``, ``result.bits_per_byte``.
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
        """The headline, with what it compares with and the other numbers."""
        (name, value), *others, (_, what) = self.task.lines(self.judged)
        return (
            f"held-out {name:<15}  {value}"
            + "".join(f"; {other} {number}" for other, number in others)
            + f"  on {what}"
            + (f"\nbest evaluation         step {self.step}" if "best_step" in self.history[-1] else "")
        )
