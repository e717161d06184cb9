"""The checkpoints of a run: states of training by step, each complete or ignored."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from safetensors import SafetensorError

from spectral_models.checkpoint import WEIGHTS
from spectral_models.errors import CheckpointError, not_written
from spectral_models.record import CONFIG
from spectral_models.seal import sealed, verify

TRAINING_MARKER = "training-complete.json"
TRAINED = "trained.safetensors"
"""The weights to continue from in checkpoints whose model has the average of the weights."""
CONTINUE = ", then continue from the last complete checkpoint with --resume."
_NEEDED = (CONFIG, WEIGHTS, "optimizer.pt", "scheduler.pt", "trainer_state.json")
"""Files without which a run cannot continue. It also needs the random states of its processes."""


@contextmanager
def saving(directory: Path) -> Iterator[None]:
    """Raise CheckpointError for files that cannot be written inside the block."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:  # torch.save reports a full disk as a RuntimeError
        raise not_written(f"could not save {directory}", error, CONTINUE) from error


def newest_complete(directory: Path, until: int | None = None) -> Path | None:
    """The newest checkpoint with all files that resuming needs, unchanged since they were written; None without one.

    until: ignore checkpoints of later steps.
    """
    for path in reversed(numbered(directory)):
        if until is not None and step_of(path) > until:
            continue
        try:
            verify(path, TRAINING_MARKER, _NEEDED)
        except CheckpointError:
            continue
        if processes_of(path):
            return path
    return None


def processes_of(checkpoint: Path) -> int:
    """The number of processes whose random states a checkpoint holds."""
    return sum(fnmatch(name, "rng_state*.pth") for name in sealed(checkpoint, TRAINING_MARKER))


def remove_newer(directory: Path, step: int) -> list[Path]:
    """Delete the checkpoints of later steps, and return their paths."""
    newer = [path for path in numbered(directory) if step_of(path) > step]
    for path in newer:
        shutil.rmtree(path)
    return newer


def numbered(directory: Path) -> list[Path]:
    """The checkpoints, complete or not, in the order of their steps."""
    found = [path for path in directory.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdecimal()]
    return sorted(found, key=step_of)


def step_of(path: Path) -> int:
    return int(path.name.removeprefix("checkpoint-"))
