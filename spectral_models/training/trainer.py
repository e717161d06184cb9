"""Hugging Face's Trainer with a task's loss, its held-out numbers, and checkpoints that are complete or ignored."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from spectral_models.checkpoint import WEIGHTS, write_files, write_weights
from spectral_models.evaluation.loop import Batch
from spectral_models.loss import StepLoss, counted
from spectral_models.model import SpectralModel
from spectral_models.seal import verify, write_marker
from spectral_models.tasks.task import Task
from spectral_models.training.average import Average, UpdateAverage
from spectral_models.training.checkpoints import TRAINED, TRAINING_MARKER, numbered, saving, step_of
from spectral_models.training.optimizers import MuonWithAdamW, parameter_groups
from spectral_models.training.options import TrainingConfig
from spectral_models.training.selection import Selection
from spectral_models.weights import put_weights, read_weights


class InTraining(nn.Module):
    """A model with the loss of its task: the module that Trainer calls with a batch."""

    accepts_loss_kwargs = True  # Trainer then leaves it to the loss to divide by the labels of the step

    def __init__(self, model: SpectralModel, loss: Callable[[Any, Batch, Tensor | int | None], StepLoss]) -> None:
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, batch: Batch, step_count: Tensor | int | None = None) -> StepLoss:
        return self.loss(self.model, batch, step_count)


class RunningMeans:
    """Means of the auxiliary losses and metrics that a model reports beside its loss."""

    def __init__(self) -> None:
        self.values: dict[str, list[Tensor]] = {}

    def add(self, output: StepLoss) -> None:
        for name, auxiliary in output.losses.items():
            self.values.setdefault(f"loss/{name}", []).append(auxiliary.detach())
        for name, value in output.metrics.items():
            self.values.setdefault(name, []).append(value.detach())

    def drain(self) -> dict[str, float]:
        """Means since the last call."""
        means = {name: float(torch.stack(values).float().mean()) for name, values in self.values.items()}
        self.values.clear()
        return means


class LogAtCheckpoints(TrainerCallback):  # type: ignore[misc]  # transformers carries no annotations mypy can follow
    """Logs with every checkpoint: the mean loss since the last log is not saved, and would lose steps on resuming.

    evaluations: with every evaluation too, as the best ones are saved.
    """

    def __init__(self, *, evaluations: bool) -> None:
        self.evaluations = evaluations

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        control.should_log |= control.should_save or (self.evaluations and control.should_evaluate)


class SpectralTrainer(Trainer):  # type: ignore[misc]  # transformers carries no annotations mypy can follow
    """Trains a model for a task."""

    def __init__(
        self,
        task: Task,
        model: SpectralModel,
        training: TrainingConfig,
        args: TrainingArguments,
        callbacks: list[TrainerCallback],
    ) -> None:
        self.task = task
        self.training = training
        self.selection = Selection.of(training, task)
        self.spectral_model = model
        self.groups = parameter_groups(model, training)
        self.reported = RunningMeans()
        smoothing: dict[str, Any] = {"label_smoothing": training.label_smoothing} if training.label_smoothing else {}
        loss = partial(task.loss, **smoothing)
        super().__init__(
            model=InTraining(model, loss),
            args=args,
            callbacks=callbacks,
            train_dataset=task.examples(training.batch_size, args.max_steps, training.seed),
            data_collator=task.collate,
            eval_dataset=(),  # the task has the held-out data; Trainer only requires that this is not None
        )
        self.add_callback(LogAtCheckpoints(evaluations=self.selection is not None))
        # After super().__init__, which moves the model to its device.
        self.average = None if training.ema is None else Average(model, training.ema)
        if self.average is not None:
            self.add_callback(UpdateAverage(self.average, model))

    @property
    def result(self) -> SpectralModel:
        """The model that is evaluated and saved: the average of the weights, if the run keeps one."""
        return self.spectral_model if self.average is None else self.average.module

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, StepLoss]:
        """The task's loss of a batch, as a share of the step's loss; times the processes, which average gradients."""
        output: StepLoss = model(inputs, num_items_in_batch)
        self.reported.add(output)
        loss = output.loss * self.accelerator.num_processes
        return (loss, output) if return_outputs else loss

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Tensor]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Tensor]], Tensor]:
        """The batches of a step, and the number of labels in them over all processes.

        Trainer would not count the first label of every sequence: it expects labels that are not shifted yet.
        """
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        here = sum((counted(batch["labels"]) for batch in batches), start=torch.tensor(0)).to(device)
        return batches, self.accelerator.gather(here).sum()

    def get_optimizer_cls_and_kwargs(
        self, args: TrainingArguments, model: nn.Module | None = None
    ) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
        """Transformers' class for the optimiser's name, with our groups of parameters."""
        optimizer, options = super().get_optimizer_cls_and_kwargs(args, model)
        return MuonWithAdamW if self.training.optimizer == "muon" else optimizer, {**options, "params": self.groups}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the parts' metrics with the training loss, and last the mean loss over all steps.

        Trainer's own train_loss is the mean over the steps since the run was resumed, and it logs timings with it.
        """
        if "loss" in logs:
            logs = {**logs, **self.reported.drain()}
        elif "train_loss" in logs:
            logs = {"train_loss": self._mean_loss()}
        super().log(logs, start_time)

    def _mean_loss(self) -> float:
        """Training loss over all steps of the run; a logged loss is the mean since the log before."""
        rows = [(row["step"], row["loss"]) for row in self.state.log_history if "loss" in row]
        steps = [step - before for before, (step, _) in zip([0, *(step for step, _ in rows)], rows, strict=False)]
        total: float = sum(count * loss for count, (_, loss) in zip(steps, rows, strict=True))
        return total / max(sum(steps), 1)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """The task's held-out numbers, without autocast, as the saved model gives them."""
        was_training = self.result.training
        self.result.eval()
        judged = self.task.judge(self.result)
        self.result.train(was_training)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in judged.items()}
        self.log(metrics)
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        if self.selection is not None:
            self.control.should_training_stop |= self.selection.is_over(self.state.log_history)
            is_best = self.selection.best_step(self.state.log_history) == self.state.global_step
            self.control.should_save |= is_best or self.control.should_training_stop
        return metrics

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Save the model, and the trained weights if it is their average; no pickled arguments."""
        if self.args.should_save:
            directory = Path(output_dir or self.args.output_dir)
            directory.mkdir(parents=True, exist_ok=True)
            write_files(self.result, directory, self.task.tokenizer)
            if self.average is not None:
                write_weights(self.spectral_model, directory / TRAINED)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        directory = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        with saving(directory):
            super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            files = [path.name for path in directory.iterdir() if path.is_file() and path.name != TRAINING_MARKER]
            with saving(directory):
                write_marker(directory, TRAINING_MARKER, sorted(files))
            # By step: Trainer goes by time, and by a clock that was set back the newest would be the oldest.
            best = None if self.selection is None else self.selection.best_step(self.state.log_history)
            for path in numbered(directory.parent)[: -self.training.keep]:
                if step_of(path) != best:
                    shutil.rmtree(path)

    def load_best(self) -> int:
        """Put the weights of the best evaluation into the model, if the run keeps them. Returns their step.

        Raises CheckpointError for a checkpoint that is missing or not as it was written.
        """
        last: int = self.state.global_step
        best = None if self.selection is None else self.selection.best_step(self.state.log_history)
        if best is None or best == last:
            return last
        directory = Path(self.args.output_dir) / f"checkpoint-{best}"
        verify(directory, TRAINING_MARKER)
        self._load_from_checkpoint(str(directory))
        return best

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        directory = Path(resume_from_checkpoint)
        put_weights(self.result, read_weights(directory / WEIGHTS), directory / WEIGHTS)
        if self.average is not None:
            put_weights(self.spectral_model, read_weights(directory / TRAINED), directory / TRAINED)
            self.average.n_averaged.fill_(step_of(directory))
