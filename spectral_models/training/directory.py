"""The directory of a run: who may write to it, and whether a run may begin or continue there."""

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
from spectral_models.training.checkpoints import TRAINING_MARKER, newest_complete, processes_of, remove_newer
from spectral_models.training.config import BY_TOTAL, RunConfig, TrainingConfig

LOCK, RECORD, DATA = "run.lock", "run.yaml", "data.json"
_log = logging.getLogger("spectral_models")


@contextmanager
def claimed(directory: Path, *, leads: bool) -> Iterator[None]:
    """Make a run's directory and hold it against other runs, until the block or the process ends.

    leads: whether this is the process that writes; the others of a run rely on it. Raises ConfigError, naming the
    holder, where another run holds the directory, and for one that is a checkpoint's.
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
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system frees it when a process ends, however it does
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read(1000).strip() or "another process"
            raise ConfigError(
                f"{directory} is in use by {holder}. Wait until that ends, end it, or choose another --out."
            ) from None
        except OSError as error:
            _log.warning("%s cannot be locked (%s): let no other run write there", directory, error.strerror)
        yield


def begin(run: RunConfig, directory: Path, *, resume: bool, leads: bool) -> Path | None:
    """Check that the run may begin or continue in its directory, and keep its config there.

    Returns the checkpoint to continue from, if any. A run that continues may have more steps than it began with, where
    the rates of the steps so far stay as they were; :func:`keep_config` then writes that down. Raises ConfigError for a
    run that is there when resume is not asked for, that is another, or whose config is lost; CheckpointError for one of
    an earlier release.
    """
    file = directory / RECORD
    begun = has_begun(directory)
    if begun and not resume:
        raise ConfigError(f"{directory} already holds a run. Continue it with --resume, or choose another --out.")
    newest = newest_complete(directory / "checkpoints") if resume else None
    if newest is not None and (schema := read_record(newest)["schema_version"]) != SCHEMA_VERSION:
        raise CheckpointError(
            f"{newest} has schema version {schema}, and models began otherwise then than in this release, which writes "
            f"{SCHEMA_VERSION}. Finish the run with the release that began it, or choose another --out."
        )
    if begun:
        if not file.exists():
            raise ConfigError(
                f"{file} is missing, and nothing else says how the run there was begun. Put it back, or choose "
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
        _write_down(run, directory, begun)
        if resume:
            _clear(directory / "checkpoints", newest)
    return newest


def _is_longer(run: RunConfig, before: RunConfig) -> bool:
    """Whether it is the run of before with more steps; its warm-up may have become a number of steps."""
    relaxed = {"steps": run.training.steps, "warmup": run.training.warmup}
    same = before.model_copy(update={"training": before.training.model_copy(update=relaxed)}) == run
    return same and run.training.steps > before.training.steps


def _checkpoint_to_extend(
    now: TrainingConfig, before: TrainingConfig, directory: Path, newest: Path | None
) -> Path | None:
    """The newest checkpoint up to which a run with more steps has the same rates. Raises ConfigError without one."""
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
    """Whether a run there has saved anything to continue from."""
    return (directory / "model").exists() or any((directory / "checkpoints").glob("checkpoint-*"))


def check_data(directory: Path, now: Fingerprint) -> None:
    """Raise ConfigError unless a run that is continued reads what it began with; keep that of a run that begins."""
    file = directory / DATA
    if has_begun(directory) and file.exists():
        before = read_json(file)
        changed = [part for part, found in now.items() if found != before.get(part)]
        if changed:
            counts = [f"{part}: {_described(before.get(part))} then, {_described(now[part])} now" for part in changed]
            raise ConfigError(
                f"the run in {directory} was begun with other data ({'; '.join(counts)}). Give it the data it began "
                "with, or begin another run in another --out."
            )
        return
    if has_begun(directory):
        _log.warning("%s is missing: whether the run began with these data cannot be checked", file)
    file.write_text(json.dumps(now, indent=2) + "\n", encoding="utf-8")


def kept_tokenizer(directory: Path) -> Tokenizer | None:
    """The tokenizer that a run began with: not learned again when it is resumed, nor by a second process."""
    return read_tokenizer(directory / "tokenizer") if (directory / "tokenizer" / TOKENIZER).exists() else None


def keep_tokenizer(directory: Path, tokenizer: Tokenizer | None) -> None:
    """Keep it there, whole or not at all; bytes need no keeping."""
    target = directory / "tokenizer"
    if tokenizer is None or target.exists() or isinstance(tokenizer, ByteTokenizer):
        return
    temporary = directory / f".tokenizer.writing-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name, content in tokenizer.files().items():
        (temporary / name).write_text(content, encoding="utf-8")
    temporary.rename(target)


def _described(part: object) -> str:
    if not isinstance(part, dict):
        return "none"
    return f"{part.get('count')} {part.get('what')} with SHA-256 {str(part.get('sha256'))[:8]}..."


def _write_down(run: RunConfig, directory: Path, begun: bool) -> None:
    since = time.strftime("%Y-%m-%d %H:%M:%S %z")
    try:
        (directory / LOCK).write_text(
            f"process {os.getpid()} on {socket.gethostname()} since {since}\n", encoding="utf-8"
        )
        if not begun:  # once: a resumed run that the disk has no room for must not lose it
            shutil.rmtree(directory / "tokenizer", ignore_errors=True)  # of a run that was killed before it saved
            (directory / RECORD).write_text(_described_run(run), encoding="utf-8")
    except OSError as error:
        raise not_written(f"cannot write to {directory}", error, ".", remedy="Choose another --out") from None


def _described_run(run: RunConfig) -> str:
    return yaml.safe_dump(run.model_dump(mode="json"), sort_keys=False)


def keep_config(run: RunConfig, directory: Path) -> None:
    """Replace the config of a run that continues with more steps."""
    file = directory / RECORD
    if RunConfig.parse(read_yaml(file)) == run:
        return
    temporary = file.with_name(f".{RECORD}.writing-{os.getpid()}")
    try:
        temporary.write_text(_described_run(run), encoding="utf-8")
        temporary.replace(file)
    except OSError as error:
        raise not_written(f"cannot write to {directory}", error, ".", remedy="Choose another --out") from None


def _clear(checkpoints: Path, newest: Path | None) -> None:
    """Say where a resumed run goes on, and delete what it passed over."""
    if newest is None:
        _log.warning("no complete checkpoint in %s: training begins at step 0", checkpoints.parent)
        return
    for path in remove_newer(checkpoints, int(newest.name.rpartition("-")[2])):
        _log.warning("%s is removed; training continues from %s, the newest that can be continued", path, newest.name)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if (before := processes_of(newest)) != processes:
        _log.warning(
            "%s has the random states of %d processes, and this run has %d: what is random goes on otherwise",
            newest,
            before,
            processes,
        )
