"""What a user sees while training: a bar on a terminal, plain lines in a log file; never anything on stdout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from spectral_models.tasks.task import Task, spelled
from spectral_models.transfer import Transfer


def held_out_numbers(row: Mapping[str, float]) -> dict[str, float]:
    """The held-out numbers in a row of the log, under the task's own names."""
    return {name.removeprefix("eval_"): value for name, value in row.items() if name.startswith("eval_")}


class TrainingProgress(TrainerCallback):  # type: ignore[misc]  # transformers carries no annotations mypy can follow
    """On stderr: where the weights come from, the steps, the training loss, and held-out numbers.

    The training loss is in nats per token or text, auxiliary losses included.

    close() takes the bar off the screen; call it however training ends.
    """

    def __init__(self, task: Task, began: Transfer | None = None) -> None:
        self._task = task
        self._began = began
        self._console = Console(stderr=True, highlight=False)
        self._bar: Progress | None = None
        self._steps = TaskID(0)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero and self._began is not None:
            self._console.print("\n".join(self._began.lines()), soft_wrap=True, markup=False)
        if state.is_world_process_zero and self._console.is_terminal:
            self._bar = Progress(
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.description}"),
                console=self._console,
                transient=True,
            )
            self._steps = self._bar.add_task("", total=state.max_steps, completed=state.global_step)
            self._bar.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._bar is not None:
            self._bar.update(self._steps, completed=state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if not state.is_world_process_zero:
            return
        where = f"step {state.global_step:>{len(str(state.max_steps))}}/{state.max_steps}"
        logs = logs or {}
        if f"eval_{self._task.headline}" in logs:
            numbers = ", ".join(f"{spelled(n)} {v:.{self._task.digits}f}" for n, v in held_out_numbers(logs).items())
            self._console.print(f"{where}  held-out {numbers}", soft_wrap=True)
        elif "loss" in logs and self._bar is not None:
            self._bar.update(self._steps, description=f"loss {logs['loss']:.3f}")
        elif "loss" in logs:
            self._console.print(f"{where}  loss {logs['loss']:.3f}", soft_wrap=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
