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
from spectral_models.training.config import RunConfig
from spectral_models.training.trainer import TRAINING_MARKER, newest_complete, processes_of, remove_newer

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

    Returns the checkpoint to continue from, if any. Raises ConfigError for a run that is there when resume is not
    asked for, that is another, or whose config is lost; CheckpointError for one of an earlier release.
    """
    record = directory / RECORD
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
        if not record.exists():
            raise ConfigError(
                f"{record} is missing, and nothing else says how the run there was begun. Put it back, or choose "
                "another --out."
            )
        before = RunConfig.parse(read_yaml(record))
        changed = sorted(key for key in type(run).model_fields if getattr(before, key) != getattr(run, key))
        if changed:
            raise ConfigError(
                f"{directory} holds a run with another config (its {', '.join(changed)} differ, see {record}). "
                "Resume with the config it began with, or choose another --out."
            )
    if leads:
        _write_down(run, directory, begun)
        if resume:
            _clear(directory / "checkpoints", newest)
    return newest


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
            described = yaml.safe_dump(run.model_dump(mode="json"), sort_keys=False)
            (directory / RECORD).write_text(described, encoding="utf-8")
    except OSError as error:
        raise not_written(f"cannot write to {directory}", error, ".", remedy="Choose another --out") from None


def _clear(checkpoints: Path, newest: Path | None) -> None:
    """Say where a resumed run goes on, and delete what it passed over."""
    if newest is None:
        _log.warning("no complete checkpoint in %s: training begins at step 0", checkpoints.parent)
        return
    for path in remove_newer(checkpoints, int(newest.name.rpartition("-")[2])):
        _log.warning("%s was not complete and is removed; continuing from %s", path, newest.name)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if (before := processes_of(newest)) != processes:
        _log.warning(
            "%s has the random states of %d processes, and this run has %d: what is random goes on otherwise",
            newest,
            before,
            processes,
        )
