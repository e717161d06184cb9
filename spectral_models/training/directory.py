"""The directory of a run: its lock, its config, and whether a run may begin or continue there."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from spectral_core import ConfigError
from spectral_models.assembly import read_yaml
from spectral_models.checkpoint import WEIGHTS
from spectral_models.data import ByteTokenizer, Tokenizer
from spectral_models.data.byte_files import TOKENIZER
from spectral_models.data.subwords import read_tokenizer
from spectral_models.errors import CheckpointError, not_written
from spectral_models.record import CONFIG, SCHEMA_VERSION, read_record
from spectral_models.seal import MARKER, read_json
from spectral_models.tasks.task import Fingerprint
from spectral_models.training.checkpoints import TRAINING_MARKER, newest_complete, processes_of, remove_newer, step_of
from spectral_models.training.config import RunConfig
from spectral_models.training.options import BY_TOTAL, TrainingConfig

LOCK, RECORD, DATA = "run.lock", "run.yaml", "data.json"
_log = logging.getLogger("spectral_models")


@contextmanager
def claimed(directory: Path, *, leads: bool) -> Iterator[None]:
    """Create a run's directory and lock it against other runs, until the block or the process ends.

    leads: whether this process writes; the other processes of a run take no lock. Raises ConfigError, naming the owner,
    if another run has locked the directory, and for the directory of a checkpoint.
    """
    held = [name for name in (CONFIG, WEIGHTS, MARKER, TRAINING_MARKER) if (directory / name).exists()]
    if held:
        raise ConfigError(
            f"{directory} is a checkpoint's directory: it holds {held[0]}. Choose another --out for a run."
        )
    if not leads:
        yield
        return
    try:
        (directory / "checkpoints").mkdir(parents=True, exist_ok=True)
        lock = (directory / LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        raise not_written(f"cannot write to {directory}", error, ".", remedy="Choose another --out") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released with the process, even a killed one
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read(1000).strip() or "another process"
            raise ConfigError(
                f"{directory} is in use by {owner}. Wait until that ends, end it, or choose another --out."
            ) from None
        except OSError as error:
            _log.warning("%s cannot be locked (%s): let no other run write there", directory, error.strerror)
        yield


def begin(run: RunConfig, directory: Path, *, resume: bool, leads: bool) -> Path | None:
    """Check that the run may begin or continue in its directory.

    Returns the checkpoint to continue from, if any. A run may continue with more steps than it began with, if that
    leaves the learning rates up to the checkpoint as they were. Raises ConfigError if a run is there and resume is not
    set, for a run with another config, and for one whose config is lost; CheckpointError for a run of an earlier
    release.
    """
    file = directory / RECORD
    begun = has_begun(directory)
    if begun and not resume:
        raise ConfigError(f"{directory} already holds a run. Continue it with --resume, or choose another --out.")
    newest = newest_complete(directory / "checkpoints") if resume else None
    if newest is not None and (schema := read_record(newest)["schema_version"]) != SCHEMA_VERSION:
        raise CheckpointError(
            f"{newest} has schema version {schema}, and this release, which writes {SCHEMA_VERSION}, initialises "
            "models differently. Finish the run with the release that began it, or choose another --out."
        )
    if begun:
        if not file.exists():
            raise ConfigError(
                f"{file} is missing, and nothing else says with which config the run began. Put it back, or choose "
                "another --out."
            )
        before = RunConfig.parse(read_yaml(file))
        if _is_longer(run, before):
            newest = _checkpoint_to_extend(run.training, before.training, directory, newest)
        elif changed := sorted(key for key in type(run).model_fields if getattr(before, key) != getattr(run, key)):
            raise ConfigError(
                f"{directory} holds a run with another config (its {', '.join(changed)} differ, see {file}). "
                "Resume with the config it began with, or choose another --out."
            )
    if leads:
        _sign(directory)
        if not begun:  # remove what a run left that was killed before it saved
            shutil.rmtree(directory / "tokenizer", ignore_errors=True)
    return newest


def _is_longer(run: RunConfig, before: RunConfig) -> bool:
    """Whether the configs differ in a larger number of steps alone, and perhaps in the form of the warm-up."""
    relaxed = {"steps": run.training.steps, "warmup": run.training.warmup}
    same = before.model_copy(update={"training": before.training.model_copy(update=relaxed)}) == run
    return same and run.training.steps > before.training.steps


def _checkpoint_to_extend(
    now: TrainingConfig, before: TrainingConfig, directory: Path, newest: Path | None
) -> Path | None:
    """The newest checkpoint up to which more steps leave the learning rates as they were.

    Raises ConfigError if there is none, and for schedules that depend on the number of steps.
    """
    refused = f"--resume cannot raise training.steps of the run in {directory} from {before.steps} to {now.steps}"
    otherwise = f"begin another run from its weights: --from {directory} --out ANOTHER"
    if now.schedule in BY_TOTAL:
        raise ConfigError(
            f"{refused}: every rate of its {now.schedule} schedule depends on the number of all steps. Instead "
            f"{otherwise}."
        )
    if now.warmup_steps != before.warmup_steps:
        same = before.warmup_steps if before.warmup_steps > 1 else before.warmup_steps / now.steps
        raise ConfigError(
            f"{refused} alone: its warm-up is a share of them, {before.warmup_steps} steps until now. Keep that with "
            f"--set training.warmup={same}, or {otherwise}."
        )
    if newest is None or now.schedule == "constant":
        return newest
    falls = before.steps - before.cooldown_steps
    if (earlier := newest_complete(directory / "checkpoints", until=falls)) is None:
        raise ConfigError(
            f"{refused}: its cool-down began behind step {falls}, and no checkpoint from before that is left. Instead "
            f"{otherwise}."
        )
    return earlier


def has_begun(directory: Path) -> bool:
    """Whether a run there has saved a checkpoint or its model."""
    return (directory / "model").exists() or any((directory / "checkpoints").glob("checkpoint-*"))


def check_data(directory: Path, now: Fingerprint) -> None:
    """Write the fingerprint of a new run's data. Raises ConfigError if a resumed run began with other data."""
    file = directory / DATA
    if has_begun(directory) and file.exists():
        before = read_json(file)
        changed = [part for part, found in now.items() if found != before.get(part)]
        if changed:
            counts = [f"{part}: {_summary(before.get(part))} then, {_summary(now[part])} now" for part in changed]
            raise ConfigError(
                f"the run in {directory} was begun with other data ({'; '.join(counts)}). Give it the data it began "
                "with, or begin another run in another --out."
            )
        return
    if has_begun(directory):
        _log.warning("%s is missing: whether the run began with these data cannot be checked", file)
    file.write_text(json.dumps(now, indent=2) + "\n", encoding="utf-8")


def kept_tokenizer(directory: Path) -> Tokenizer | None:
    """The tokenizer that a run began with, for when it is resumed and for its other processes; None without one."""
    return read_tokenizer(directory / "tokenizer") if (directory / "tokenizer" / TOKENIZER).exists() else None


def keep_tokenizer(directory: Path, tokenizer: Tokenizer | None) -> None:
    """Save the tokenizer in the run's directory, completely or not at all. Bytes need no file."""
    target = directory / "tokenizer"
    if tokenizer is None or target.exists() or isinstance(tokenizer, ByteTokenizer):
        return
    temporary = directory / f".tokenizer.writing-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name, content in tokenizer.files().items():
        (temporary / name).write_text(content, encoding="utf-8")
    temporary.rename(target)


def _summary(part: object) -> str:
    if not isinstance(part, dict):
        return "none"
    return f"{part.get('count')} {part.get('what')} with SHA-256 {str(part.get('sha256'))[:8]}..."


def keep_config(run: RunConfig, directory: Path) -> None:
    """Write the run's config, completely or not at all, unless it is there already."""
    file = directory / RECORD
    text = yaml.safe_dump(run.model_dump(mode="json"), sort_keys=False)
    if file.exists() and file.read_text(encoding="utf-8") == text:
        return
    temporary = file.with_name(f".{RECORD}.writing-{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(file)


def _sign(directory: Path) -> None:
    """Name this process in the lock, for others that find it taken."""
    owner = f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S %z')}\n"
    try:
        (directory / LOCK).write_text(owner, encoding="utf-8")
    except OSError as error:
        raise not_written(f"cannot write to {directory}", error, ".", remedy="Choose another --out") from None


def remove_later(checkpoints: Path, newest: Path | None) -> None:
    """Log where a resumed run continues, and delete later checkpoints: incomplete ones, and those of a cool-down."""
    if newest is None:
        _log.warning("no complete checkpoint in %s: training begins at step 0", checkpoints.parent)
        return
    for path in remove_newer(checkpoints, step_of(newest)):
        _log.warning("%s is removed: training continues from %s", path, newest.name)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if (before := processes_of(newest)) != processes:
        _log.warning(
            "%s has the random states of %d processes, and this run has %d: dropout continues with other numbers",
            newest,
            before,
            processes,
        )
