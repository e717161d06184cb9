"""A training run: a directory that can be killed at any moment and resumed."""

from __future__ import annotations

from spectral_models.training import libraries  # noqa: F401

# isort: split
import json
import os
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PrinterCallback, TrainerCallback, TrainerState, TrainingArguments, set_seed
from transformers.utils import logging as transformers_logging

from spectral_core import ConfigError, SpectralError
from spectral_models.assembly import build_model
from spectral_models.checkpoint import save_checkpoint
from spectral_models.errors import not_written
from spectral_models.seal import verify
from spectral_models.tasks.task import Task
from spectral_models.training import trackers
from spectral_models.training.config import RunConfig, TrainingConfig
from spectral_models.training.directory import begin, check_data, claimed, keep_config, keep_tokenizer, kept_tokenizer
from spectral_models.training.optimizers import freeze, require_optimizer, transformers_name
from spectral_models.training.progress import TrainingProgress, held_out_numbers
from spectral_models.training.result import TrainingResult
from spectral_models.training.selection import Selection
from spectral_models.training.trainer import CONTINUE, TRAINING_MARKER, SpectralTrainer


def train(run: RunConfig, out: str | Path, *, resume: bool = False) -> TrainingResult:
    """Train a model and leave it in the directory ``out``.

    ===============  ======================================================================
    run.yaml         the whole config, defaults included
    data.json        how much it reads, and the SHA-256 of that
    run.lock         held while it runs; names the process
    tokenizer/       the tokenizer it began with, unless it reads bytes
    checkpoints/     the last few states of training, each whole or ignored
    logs/            TensorBoard, if it is among ``training.trackers``
    model/           the finished model: :func:`spectral_models.load_checkpoint` reads it
    curve.png        learning curve
    metrics.json     the final held-out numbers, and what was logged
    ===============  ======================================================================

    resume: continue from the newest complete checkpoint, to the same losses as a run that was never interrupted. The
    run may have more steps than it began with, if its schedule is constant, or warmup_stable_decay with a checkpoint
    from before the cool-down: it then ends with the weights of a run that had them from the start.
    Under ``torchrun`` or ``accelerate launch`` the processes share each step's batch. Raises ConfigError when ``out``
    holds a checkpoint, a run and resume is not asked for, or one with another config or other data, and when another
    process trains there; DataError for data that cannot be read or do not fit the model, and then leaves no directory
    that was not there before.
    """
    if not str(out).strip():
        raise ConfigError("the run's directory has no name. Give one: --out DIRECTORY.")
    directory = Path(out)
    share = _share(run.training)
    require_optimizer(run.training.optimizer)
    reporting = trackers.callbacks(run.training.trackers, directory / "logs")
    leads = int(os.environ.get("RANK", "0")) == 0
    new = leads and not directory.exists()
    with claimed(directory, leads=leads):
        checkpoint = begin(run, directory, resume=resume, leads=leads)
        try:
            arguments = _arguments(run, share, directory)
            try:
                task = _load(run, directory, arguments)
                _stop_where_it_stopped(run, task, checkpoint, arguments)
                trainer = _trainer(run, task, arguments, reporting)
            except SpectralError:
                if new:
                    shutil.rmtree(directory)
                raise
            if leads:
                keep_config(run, directory)
            return _train(run, trainer, directory, checkpoint)
        except (OSError, SafetensorError) as error:
            raise not_written(f"the run in {directory} stopped", error, CONTINUE, remedy="Mend that") from error


def _load(run: RunConfig, directory: Path, arguments: TrainingArguments) -> Task:
    """The run's task with its data; the tokenizer is the one that the run began with."""
    assert run.task is not None
    with arguments.main_process_first():  # what it learns from the data, the others read
        task = run.task.load(run.model, run.data, tokenizer=kept_tokenizer(directory))
        keep_tokenizer(directory, task.tokenizer)
        if arguments.process_index == 0:
            check_data(directory, task.fingerprint())
    return task


def _stop_where_it_stopped(run: RunConfig, task: Task, checkpoint: Path | None, arguments: TrainingArguments) -> None:
    """Resuming a run that stopped early trains no further step.

    Raises CheckpointError if the checkpoint of its best evaluation is missing or not as it was written.
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
    run: RunConfig, task: Task, arguments: TrainingArguments, reporting: list[TrainerCallback]
) -> SpectralTrainer:
    set_seed(run.training.seed)
    model = build_model(task.model)
    model.gradient_checkpointing = run.training.gradient_checkpointing
    freeze(model, run.training.freeze)
    trainer = SpectralTrainer(task, model, run.training, arguments, callbacks=reporting)
    trainer.remove_callback(PrinterCallback)
    return trainer


def _train(run: RunConfig, trainer: SpectralTrainer, directory: Path, checkpoint: Path | None) -> TrainingResult:
    task, model = trainer.task, trainer.result
    progress = TrainingProgress(task)
    trainer.add_callback(progress)
    with closing(progress):
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    history = trainer.state.log_history
    evaluated = f"eval_{task.headline}"
    if not any(row["step"] == trainer.state.global_step and evaluated in row for row in history):
        trainer.evaluate()
    step = trainer.load_best()
    if trainer.selection is not None:
        trainer.log({"best_step": step})
    judged = held_out_numbers(next(row for row in history if row["step"] == step and evaluated in row))
    model.eval()
    if trainer.is_world_process_zero():
        save_checkpoint(model, directory / "model", tokenizer=task.tokenizer)
        training = run.training
        title = f"{run.data.source}: {trainer.state.global_step} steps of {training.batch_size}"
        task.draw(history, directory / "curve.png", title)
        rows = [dict(sorted(row.items())) for row in history]  # as they are read back from a checkpoint
        written = json.dumps({**task.metrics(judged), "step": step, "history": rows}, indent=2)
        (directory / "metrics.json").write_text(written + "\n", encoding="utf-8")
    return TrainingResult(model, history, directory, task, judged, step)


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _share(config: TrainingConfig) -> int:
    """Sequences per process and accumulated batch; refuses what cannot be divided or run here."""
    processes = _processes()
    share, rest = divmod(config.batch_size, processes * config.accumulation)
    if rest or not share:
        raise ConfigError(
            f"training.batch_size {config.batch_size} must be a multiple of processes x accumulation = "
            f"{processes} x {config.accumulation}."
        )
    if config.precision == "fp16" and not torch.cuda.is_available():
        raise ConfigError("training.precision fp16 needs a GPU. Use bf16 or float32.")
    return share


def transformers_schedule(config: TrainingConfig) -> dict[str, Any]:
    """The schedule as transformers names it, and its options."""
    if config.schedule == "constant":
        return {"lr_scheduler_type": "constant_with_warmup"}
    if config.schedule == "cosine":
        return {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": config.final_rate}}
    falling = {"num_decay_steps": config.cooldown_steps, "decay_type": "linear", "min_lr_ratio": config.final_rate}
    return {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": falling}


def _arguments(run: RunConfig, share: int, directory: Path) -> TrainingArguments:
    assert run.task is not None
    config = run.training
    cuda = torch.cuda.is_available()
    transformers_logging.set_verbosity_error()
    return TrainingArguments(
        output_dir=str(directory / "checkpoints"),
        max_steps=config.steps,
        per_device_train_batch_size=share,
        gradient_accumulation_steps=config.accumulation,
        optim=transformers_name(config.optimizer),
        learning_rate=config.learning_rate,
        **transformers_schedule(config),
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        adam_beta1=config.betas[0],
        adam_beta2=config.betas[1],
        max_grad_norm=config.clip,
        bf16=config.precision == "bf16",
        fp16=config.precision == "fp16",
        eval_strategy="steps",
        eval_steps=config.eval_every,
        save_strategy="steps",
        save_steps=config.save_every,
        save_total_limit=None,  # SpectralTrainer deletes
        logging_steps=config.log_every,
        disable_tqdm=True,  # TrainingProgress reports instead
        report_to=[],  # the trackers are callbacks of their own
        run_name=str(directory),
        seed=config.seed,
        data_seed=config.seed,
        train_sampling_strategy="sequential",  # examples are in random order by themselves
        dataloader_pin_memory=cuda,
        remove_unused_columns=False,
        ddp_find_unused_parameters=not run.task.uses_all_parameters,
        ddp_backend="gloo" if _processes() > 1 and not cuda else None,
        use_cpu=not cuda,
        average_tokens_across_devices=True,
    )
