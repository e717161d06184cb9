"""What a run's config means to transformers' Trainer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.utils import logging as transformers_logging

from spectral_core import ConfigError
from spectral_models.training.config import RunConfig
from spectral_models.training.optimizers import require_optimizer
from spectral_models.training.options import TrainingConfig


def training_arguments(run: RunConfig, directory: Path) -> TrainingArguments:
    """Trainer's arguments for a run in that directory; writes nothing.

    Raises ConfigError for a batch that the processes cannot share, and for what needs a GPU or a library that is not
    there.
    """
    assert run.task is not None
    config = run.training
    cuda = torch.cuda.is_available()
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    share, rest = divmod(config.batch_size, processes * config.accumulation)
    if rest or not share:
        raise ConfigError(
            f"training.batch_size {config.batch_size} must be a multiple of processes x accumulation = "
            f"{processes} x {config.accumulation}."
        )
    if config.precision == "fp16" and not cuda:
        raise ConfigError("training.precision fp16 needs a GPU. Use bf16 or float32.")
    require_optimizer(config.optimizer)
    transformers_logging.set_verbosity_error()
    return TrainingArguments(
        output_dir=str(directory / "checkpoints"),
        max_steps=config.steps,
        per_device_train_batch_size=share,
        gradient_accumulation_steps=config.accumulation,
        optim="adamw_torch_fused" if config.optimizer in ("adamw", "muon") else config.optimizer,
        learning_rate=config.learning_rate,
        warmup_steps=config.warmup_steps,
        **schedule(config),
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
        ddp_backend="gloo" if processes > 1 and not cuda else None,
        use_cpu=not cuda,
        average_tokens_across_devices=True,
    )


def schedule(config: TrainingConfig) -> dict[str, Any]:
    """The schedule as transformers names it, and its options."""
    if config.schedule == "constant":
        return {"lr_scheduler_type": "constant_with_warmup"}
    if config.schedule == "cosine":
        return {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": config.final_rate}}
    falling = {"num_decay_steps": config.cooldown_steps, "decay_type": "linear", "min_lr_ratio": config.final_rate}
    return {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": falling}
