"""A training run: a directory that can be killed at any moment and resumed."""

from __future__ import annotations

from spectral_models.training import libraries  # noqa: F401

# isort: split
import json
import os
import shutil
from contextlib import closing
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor
from transformers import PrinterCallback, TrainerCallback, TrainerState, TrainingArguments, set_seed

from spectral_core import ConfigError, SpectralError
from spectral_models.assembly import build_model
from spectral_models.checkpoint import save_checkpoint
from spectral_models.errors import not_written
from spectral_models.model import SpectralModel
from spectral_models.record import read_record
from spectral_models.seal import verify
from spectral_models.tasks.task import Task
from spectral_models.training import trackers
from spectral_models.training.arguments import training_arguments
from spectral_models.training.card import CURVE, write_card
from spectral_models.training.checkpoints import CONTINUE, TRAINING_MARKER
from spectral_models.training.config import RunConfig
from spectral_models.training.directory import (
    begin,
    check_data,
    claimed,
    has_begun,
    keep_config,
    keep_tokenizer,
    kept_tokenizer,
    remove_later,
)
from spectral_models.training.lora import add_adapters, merge_adapters, save_adapter
from spectral_models.training.optimizers import freeze
from spectral_models.training.progress import TrainingProgress, held_out_numbers
from spectral_models.training.result import TrainingResult
from spectral_models.training.selection import Selection
from spectral_models.training.trainer import SpectralTrainer
from spectral_models.transfer import Transfer, check_tokenizer, first_tokenizer, transfer_weights


def train(run: RunConfig, out: str | Path, *, resume: bool = False) -> TrainingResult:
    """Train a model and save it, with all that belongs to the run, in the directory ``out``.

    ===============  ======================================================================
    run.yaml         the whole config, defaults included
    data.json        how much it reads, and the SHA-256 of that
    run.lock         held while it runs; names the process
    tokenizer/       the tokenizer it began with, unless it reads bytes
    checkpoints/     the last few states of training, each whole or ignored
    logs/            TensorBoard, if it is among ``training.trackers``
    model/           the finished model: :func:`spectral_models.load_checkpoint` reads it; README.md, its model card
    adapter/         with ``training.lora.keep``: what training added to the checkpoint's weights
    curve.png        learning curve
    metrics.json     the final held-out numbers, and what was logged
    ===============  ======================================================================

    resume: continue from the newest complete checkpoint, to the same losses as a run that was never interrupted. The
    run may have more steps than it began with, if its schedule is constant, or warmup_stable_decay with a checkpoint
    from before the cool-down: it then ends with the weights of a run that had them from the start.
    Under ``torchrun`` or ``accelerate launch`` the processes share each step's batch.

    Raises ConfigError when ``out`` holds a checkpoint, a run and resume is not asked for, or one with another config or
    other data, when another process trains there, and for a config that cannot be trained here; DataError for data that
    cannot be read or do not fit the model. A directory that was not there before is not left behind.
    """
    if not str(out).strip():
        raise ConfigError("the run's directory has no name. Give one: --out DIRECTORY.")
    directory = Path(out)
    arguments = training_arguments(run, directory)
    reporting = trackers.callbacks(run.training.trackers, directory / "logs")
    leads = int(os.environ.get("RANK", "0")) == 0
    new = leads and not directory.exists()
    with claimed(directory, leads=leads):
        checkpoint = begin(run, directory, resume=resume, leads=leads)
        try:
            try:
                task = _load(run, directory, arguments)
                _end_at_an_early_stop(run, task, checkpoint, arguments)
                trainer, progress = _trainer(run, task, checkpoint, arguments, reporting)
            except SpectralError:
                if new:
                    shutil.rmtree(directory)
                raise
            if leads:
                keep_config(run, directory)
                if resume:
                    remove_later(directory / "checkpoints", checkpoint)
            with closing(progress):
                trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
            return _finished(run, trainer, directory)
        except (OSError, SafetensorError) as error:
            raise not_written(f"the run in {directory} stopped", error, CONTINUE, remedy="Mend that") from error


def _load(run: RunConfig, directory: Path, arguments: TrainingArguments) -> Task:
    """The run's task with its data, and with the tokenizer that the run began with."""
    assert run.task is not None
    with arguments.main_process_first():  # the other processes read the tokenizer that it learned
        tokenizer = kept_tokenizer(directory)
        if tokenizer is None and run.init_from is not None:
            tokenizer = first_tokenizer(run.data, run.init_from)
        task = run.task.load(run.model, run.data, tokenizer=tokenizer)
        if run.init_from is not None and not has_begun(directory):
            check_tokenizer(task.tokenizer, run.init_from)
        keep_tokenizer(directory, task.tokenizer)
        if arguments.process_index == 0:
            check_data(directory, task.fingerprint())
    return task


def _end_at_an_early_stop(run: RunConfig, task: Task, checkpoint: Path | None, arguments: TrainingArguments) -> None:
    """Let a run that stopped early train no further step when it is resumed.

    Raises CheckpointError if the checkpoint of its best evaluation is missing or was changed.
    """
    selection = Selection.of(run.training, task)
    if selection is None or checkpoint is None:
        return
    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    if (best := selection.best_step(state.log_history)) is not None:
        verify(checkpoint.with_name(f"checkpoint-{best}"), TRAINING_MARKER)
    if selection.is_over(state.log_history):
        arguments.max_steps = state.global_step


def _trainer(
    run: RunConfig,
    task: Task,
    checkpoint: Path | None,
    arguments: TrainingArguments,
    reporting: list[TrainerCallback],
) -> tuple[SpectralTrainer, TrainingProgress]:
    set_seed(run.training.seed)
    model = build_model(task.model)
    model.gradient_checkpointing = run.training.gradient_checkpointing
    began = _begin_from(run, model, checkpoint)
    progress = TrainingProgress(task, began)
    freeze(model, run.training.freeze)
    if run.training.lora is not None:
        assert model.origin is not None
        add_adapters(model, run.training.lora, model.origin["new"])
    trainer = SpectralTrainer(task, model, run.training, arguments, callbacks=[*reporting, progress])
    trainer.remove_callback(PrinterCallback)
    return trainer, progress


def _begin_from(run: RunConfig, model: SpectralModel, checkpoint: Path | None) -> Transfer | None:
    """Put the weights of ``init_from`` into a new model; a run that is resumed has them, and their origin, already."""
    if checkpoint is not None:
        model.origin = read_record(checkpoint).get("init_from")
        return None
    return None if run.init_from is None else transfer_weights(model, run.init_from)


def _finished(run: RunConfig, trainer: SpectralTrainer, directory: Path) -> TrainingResult:
    """Evaluate a trained model if its last step was not, choose the weights to keep, and save what the run leaves."""
    task, history = trainer.task, trainer.state.log_history
    evaluated = f"eval_{task.headline}"
    last = trainer.state.global_step
    if not any(row["step"] == last and evaluated in row for row in history):
        trainer.evaluate()
    step = trainer.load_best()
    if trainer.selection is not None:
        trainer.log({"best_step": step})
    judged = held_out_numbers(next(row for row in history if row["step"] == step and evaluated in row))
    model = trainer.result.eval()
    if (lora := run.training.lora) is not None:
        if lora.keep and trainer.is_world_process_zero():
            save_adapter(model, lora, directory / "adapter")
        merge_adapters(model)
    if trainer.is_world_process_zero():
        task.draw(history, directory / CURVE, f"{run.data.source}: {last} steps of {run.training.batch_size}")
        save_checkpoint(model, directory / "model", tokenizer=task.tokenizer)
        parameters = sum(map(Tensor.numel, model.parameters()))
        write_card(run, task, judged, step, model.origin, parameters, directory / "model")
        rows = [dict(sorted(row.items())) for row in history]  # as they are read back from a checkpoint
        written = json.dumps({**task.metrics(judged), "step": step, "history": rows}, indent=2)
        (directory / "metrics.json").write_text(written + "\n", encoding="utf-8")
    return TrainingResult(model, history, directory, task, judged, step)
