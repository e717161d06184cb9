"""Hugging Face's Trainer, taught three things: our loss, bits per byte, and checkpoints that are whole or ignored."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from spectral_layers.projection import Projection
from spectral_models.checkpoint import load_weights, verify, write_marker
from spectral_models.data import ContiguousWindows
from spectral_models.data.windows import IGNORE
from spectral_models.errors import CheckpointError
from spectral_models.evaluation import bits_per_byte
from spectral_models.integrations.huggingface import SpectralForCausalLM
from spectral_models.integrations.huggingface.causal_lm import SpectralCausalLMOutput

TRAINING_MARKER = "training-complete.json"


class LanguageModelLoss:
    """Mean cross-entropy of labels that are already shifted, plus the model's auxiliary losses.

    num_items_in_batch: labels of the whole step, over accumulated batches and processes; each batch then adds its sum
    over that, so that any division of a step into batches and processes gives the same gradient.
    """

    def __init__(self) -> None:
        self.metrics: dict[str, list[Tensor]] = {}

    def __call__(
        self, output: SpectralCausalLMOutput, labels: Tensor, num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        assert output.logits is not None
        here = (labels != IGNORE).sum()
        whole = here if num_items_in_batch is None else torch.as_tensor(num_items_in_batch, device=here.device)
        loss = F.cross_entropy(output.logits.flatten(0, 1).float(), labels.flatten(), reduction="sum") / whole
        for name, auxiliary in (output.losses or {}).items():
            loss = loss + auxiliary * (here / whole)
            self.metrics.setdefault(f"loss/{name}", []).append(auxiliary.detach())
        for name, value in (output.metrics or {}).items():
            self.metrics.setdefault(name, []).append(value.detach())
        return loss

    def drain(self) -> dict[str, float]:
        """Means since the last call."""
        means = {name: float(torch.stack(values).float().mean()) for name, values in self.metrics.items()}
        self.metrics.clear()
        return means


class LogAtCheckpoints(TrainerCallback):  # type: ignore[misc]  # transformers carries no annotations mypy can follow
    """Logs with every checkpoint: the mean loss since the last log is not saved, and would lose steps on resuming."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        control.should_log = control.should_log or control.should_save


class SpectralTrainer(Trainer):  # type: ignore[misc]  # transformers carries no annotations mypy can follow
    """Trainer for byte-level language models."""

    def __init__(self, model: SpectralForCausalLM, *, eval_windows: ContiguousWindows, **kwargs: Any) -> None:
        self.loss = LanguageModelLoss()
        self.eval_windows = eval_windows
        super().__init__(model=model, compute_loss_func=self.loss, eval_dataset=eval_windows, **kwargs)
        self.add_callback(LogAtCheckpoints)

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Tensor]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Tensor]], Tensor]:
        """The batches of a step and how many labels they hold over all processes.

        Counted here because ours are shifted already, and Trainer would leave out the first of every window.
        """
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        here = sum(((batch["labels"] != IGNORE).sum() for batch in batches), start=torch.tensor(0)).to(device)
        return batches, self.accelerator.gather(here).sum()

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Weights of linear layers and embeddings; kernels, gates, norms and biases are not pulled towards zero."""
        return [
            f"{name}.weight"
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear | nn.Embedding | Projection)
        ]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the parts' metrics to every training log."""
        super().log({**logs, **self.loss.drain()} if "loss" in logs else logs, start_time)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Bits per byte of the held-out windows, without autocast: what the saved model gives."""
        model = self.accelerator.unwrap_model(self.model).model
        was_training = model.training
        model.eval()
        bits = bits_per_byte(model, self.eval_windows, batch_size=self.args.per_device_eval_batch_size)
        model.train(was_training)
        metrics = {f"{metric_key_prefix}_bits_per_byte": bits}
        self.log(metrics)
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """The model alone, in our format; no pickled arguments."""
        if self.args.should_save:
            self.accelerator.unwrap_model(self.model).save_pretrained(output_dir or self.args.output_dir)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        directory = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        with _saving(directory):
            super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            files = [path.name for path in directory.iterdir() if path.is_file() and path.name != TRAINING_MARKER]
            with _saving(directory):
                write_marker(directory, TRAINING_MARKER, sorted(files))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        wrapper: SpectralForCausalLM = self.accelerator.unwrap_model(self.model if model is None else model)
        load_weights(wrapper.model, Path(resume_from_checkpoint))


@contextmanager
def _saving(directory: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:  # torch.save reports a full disk as a RuntimeError
        raise CheckpointError(
            f"could not save {directory}: {error}. Free space, then continue from the last complete checkpoint "
            "with --resume."
        ) from error


def newest_complete(directory: Path) -> Path | None:
    """The newest training checkpoint all of whose files are as they were written; None when there is none."""
    for path in sorted(_numbered(directory), key=_step, reverse=True):
        try:
            verify(path, TRAINING_MARKER)
        except CheckpointError:
            continue
        return path
    return None


def remove_newer(directory: Path, step: int) -> list[Path]:
    """Delete the checkpoints beyond a step: interrupted ones, which would be taken for recent ones and kept."""
    newer = [path for path in _numbered(directory) if _step(path) > step]
    for path in newer:
        shutil.rmtree(path)
    return newer


def _numbered(directory: Path) -> list[Path]:
    return [path for path in directory.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit()]


def _step(path: Path) -> int:
    return int(path.name.removeprefix("checkpoint-"))
