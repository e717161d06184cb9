"""The best evaluation of a run, and when training stops because none is better. Both are read off what was logged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spectral_core import ConfigError
from spectral_models.tasks.task import Task
from spectral_models.training.options import TrainingConfig


@dataclass(frozen=True)
class Selection:
    """The best evaluation has the largest or smallest of a number; of equal ones the first.

    name: of the number in the log. patience: evaluations after the best one until training stops.
    """

    name: str
    greater_is_better: bool
    patience: int | None

    @staticmethod
    def of(training: TrainingConfig, task: Task) -> Selection | None:
        """What the config asks for, if anything. Raises ConfigError for a task that does not say what is better."""
        if not training.keeps_best:
            return None
        if task.greater_is_better is None:
            raise ConfigError(
                f"training.{'best' if training.best else 'patience'}: {type(task).__name__} does not say whether more "
                f"{task.headline} is better. Define greater_is_better there, or keep the last weights."
            )
        return Selection(f"eval_{task.headline}", task.greater_is_better, training.patience)

    def _evaluations(self, history: Sequence[dict[str, Any]]) -> list[tuple[float, int]]:
        """(value, step): the larger the value, the better; NaN is worst."""
        sign = 1 if self.greater_is_better else -1
        found = [(sign * row[self.name], row["step"]) for row in history if self.name in row]
        return [(value if value == value else float("-inf"), step) for value, step in found]

    def best_step(self, history: Sequence[dict[str, Any]]) -> int | None:
        """The step of the best evaluation; None before the first."""
        return max(self._evaluations(history), key=lambda evaluation: evaluation[0], default=(0.0, None))[1]

    def is_over(self, history: Sequence[dict[str, Any]]) -> bool:
        """Whether so many evaluations as patience asks for came after the best one."""
        best = self.best_step(history)
        after = [step for _, step in self._evaluations(history) if best is not None and step > best]
        return self.patience is not None and len(after) >= self.patience
