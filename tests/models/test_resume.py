"""A run can be killed at any moment: what was saved is whole or ignored, and resuming changes nothing."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import SafetensorError

import spectral_models.checkpoint
import spectral_models.training.trainer
from spectral_core import ConfigError
from spectral_models import CheckpointError, load_checkpoint
from spectral_models.checkpoint import load_tokenizer
from spectral_models.data import RandomWindows
from spectral_models.errors import not_written
from spectral_models.record import CONFIG
from spectral_models.seal import write_marker
from spectral_models.training import RunConfig, load_run
from spectral_models.training.checkpoints import TRAINING_MARKER, newest_complete, remove_newer
from spectral_models.training.directory import begin, claimed
from spectral_models.training.result import TrainingResult
from spectral_models.training.run import train

# Saved every fifth step and logged every fourth, so that no checkpoint would fall on a log by itself.
RUN = {
    "model": {
        "hidden_dim": 32,
        "num_layers": 2,
        "layers": [
            {"mixer": {"type": "gated_convolution", "filter": {"type": "resonant", "modes": 4}}, "dropout": 0.1},
            {"mixer": {"type": "holographic", "phases": 8}, "feedforward": {"type": "moe", "experts": 2, "active": 1}},
        ],
    },
    "data": {"context": 64, "validation_bytes": 2000},
    "training": {"steps": 18, "batch_size": 4, "accumulation": 2, "eval_every": 6, "save_every": 5, "log_every": 4},
}
SCRIPT = """
import os, shutil, signal, sys, torch
from pathlib import Path
import spectral_models.checkpoint
from spectral_models.data import RandomWindows
from spectral_models.training import load_run
from spectral_models.training.run import train

torch.set_num_threads(1)
file, directory, name, number = sys.argv[1:]
owners = {
    "__getitem__": RandomWindows, "fsync": os, "rename": Path, "rmtree": shutil, "save": torch,
    "save_file": spectral_models.checkpoint, "write_text": Path,
}
plain, left = getattr(owners[name], name), [int(number)]

def deadly(*arguments, **options):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(*arguments, **options)

setattr(owners[name], name, deadly)
train(load_run(file), directory)
"""
"""Kills itself (SIGKILL) at the so manieth call of a function."""
MOMENTS = [
    *(("__getitem__", number) for number in (1, 2, 21, 37, 57, 72)),  # batches
    *(("write_text", number) for number in (2, 3, 4, 6, 11, 18)),  # run.yaml, data.json, configs, markers, metrics.json
    *(("save_file", number) for number in (1, 3, 5)),  # weights
    *(("save", number) for number in (1, 2, 6, 11)),  # optimizers, schedulers, random states
    *(("fsync", number) for number in (1, 9, 30, 54)),
    ("rmtree", 2),  # an old checkpoint is deleted
    ("rename", 1),  # the model is put in its place
]


@pytest.fixture(scope="module")
def run_file(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    text = folder / "text.txt"
    text.write_text("".join(f"line {i}: the quick brown fox {i * i % 97}\n" for i in range(1200)), encoding="utf-8")
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump({**RUN, "data": {**RUN["data"], "source": str(text)}}), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def run(run_file) -> RunConfig:
    return load_run(run_file)


@pytest.fixture(scope="module")
def uninterrupted(run, tmp_path_factory) -> TrainingResult:
    return train(run, tmp_path_factory.mktemp("uninterrupted") / "run")


@pytest.fixture(scope="module")
def killed(run_file, tmp_path_factory) -> Path:
    """The directory of a run that was killed (SIGKILL) between the checkpoints 10 and 15."""
    directory = tmp_path_factory.mktemp("killed") / "run"
    kill(run_file, directory, "__getitem__", 53)
    assert checkpoints(directory) == ["checkpoint-10", "checkpoint-5"]
    assert not (directory / "model").exists()
    return directory


def kill(run_file: Path, directory: Path, name: str, number: int) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(run_file), str(directory), name, str(number)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr


@pytest.fixture
def stopped(killed, tmp_path) -> Path:
    """A copy of the killed run, for a test to spoil."""
    return Path(shutil.copytree(killed, tmp_path / "run"))


def checkpoints(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "checkpoints").iterdir())


def assert_same(resumed: TrainingResult, whole: TrainingResult) -> None:
    assert resumed.history == whole.history
    assert resumed.bits_per_byte == whole.bits_per_byte
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name
    for file in ("metrics.json", "model/model.safetensors", "model/complete.json"):
        assert (resumed.directory / file).read_bytes() == (whole.directory / file).read_bytes(), file


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def test_a_killed_run_resumes_to_the_numbers_of_one_that_never_stopped(run, stopped, uninterrupted):
    resumed = train(run, stopped, resume=True)
    assert_same(resumed, uninterrupted)
    assert [row["step"] for row in resumed.history if "loss" in row] == [4, 5, 8, 10, 12, 15, 16, 18]
    assert [row["step"] for row in resumed.history if "eval_bits_per_byte" in row] == [6, 12, 18]
    assert checkpoints(stopped) == ["checkpoint-15", "checkpoint-18"]
    losses = [row["loss"] for row in resumed.history if "loss" in row]
    counts = [4, 1, 3, 2, 2, 3, 1, 2]
    mean = sum(count * loss for count, loss in zip(counts, losses, strict=True)) / 18
    assert resumed.history[-1]["train_loss"] == pytest.approx(mean, rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "number"), MOMENTS)
def test_a_run_killed_at_any_moment_ends_as_if_it_had_not_been(run, run_file, uninterrupted, tmp_path, name, number):
    kill(run_file, tmp_path / "run", name, number)
    assert_same(train(run, tmp_path / "run", resume=True), uninterrupted)


@pytest.mark.parametrize("without", [["optimizer.pt"], ["scheduler.pt"], ["rng_state.pth"], ["trainer_state.json"]])
def test_a_checkpoint_whose_marker_leaves_out_what_resuming_needs_is_passed_over(stopped, without):
    """Trainer would go on without a word: from zero moments, at another rate, or from other random numbers."""
    folder = stopped / "checkpoints"
    newest = folder / "checkpoint-10"
    for name in without:
        (newest / name).unlink()
    write_marker(newest, TRAINING_MARKER, [path.name for path in newest.iterdir() if path.name != TRAINING_MARKER])
    assert newest_complete(folder) == folder / "checkpoint-5"


def test_checkpoints_are_deleted_by_step_whatever_the_clock_says(run, stopped, uninterrupted):
    """A clock that was set back: those of before are of the future."""
    for path in (stopped / "checkpoints").iterdir():
        os.utime(path, (2e9, 2e9 + path.stat().st_size))
    assert_same(train(run, stopped, resume=True), uninterrupted)
    assert checkpoints(stopped) == ["checkpoint-15", "checkpoint-18"]


@pytest.mark.parametrize(
    ("file", "spoil"),
    [
        ("training-complete.json", Path.unlink),
        ("training-complete.json", truncate),
        ("optimizer.pt", Path.unlink),
        ("optimizer.pt", truncate),
        ("optimizer.pt", flip_a_byte),
        ("model.safetensors", flip_a_byte),
        ("trainer_state.json", flip_a_byte),
        ("rng_state.pth", truncate),
    ],
)
def test_a_checkpoint_that_is_not_as_it_was_written_is_passed_over(stopped, file, spoil):
    folder = stopped / "checkpoints"
    assert newest_complete(folder) == folder / "checkpoint-10"
    spoil(folder / "checkpoint-10" / file)
    assert newest_complete(folder) == folder / "checkpoint-5"
    spoil(folder / "checkpoint-5" / file)
    assert newest_complete(folder) is None


def test_resuming_after_a_half_written_checkpoint_goes_on_from_the_one_before(run, stopped, uninterrupted):
    flip_a_byte(stopped / "checkpoints" / "checkpoint-10" / "optimizer.pt")
    shutil.copytree(stopped / "checkpoints" / "checkpoint-10", stopped / "checkpoints" / "checkpoint-15")
    (stopped / "checkpoints" / "checkpoint-15" / "training-complete.json").unlink()
    resumed = train(run, stopped, resume=True)
    assert_same(resumed, uninterrupted)
    assert newest_complete(stopped / "checkpoints") == stopped / "checkpoints" / "checkpoint-18"


def test_only_checkpoints_beyond_the_step_are_removed(stopped):
    folder = stopped / "checkpoints"
    (folder / "checkpoint-notes").mkdir()
    assert remove_newer(folder, 5) == [folder / "checkpoint-10"]
    assert checkpoints(stopped) == ["checkpoint-5", "checkpoint-notes"]
    assert newest_complete(folder) == folder / "checkpoint-5"


def test_without_a_complete_checkpoint_resuming_begins_at_the_beginning(run, stopped, uninterrupted, tmp_path):
    for path in (stopped / "checkpoints").iterdir():
        (path / "training-complete.json").unlink()
    assert_same(train(run, stopped, resume=True), uninterrupted)


def test_resuming_where_nothing_was_begun_begins(run, uninterrupted, tmp_path):
    assert_same(train(run, tmp_path / "new", resume=True), uninterrupted)


def test_a_finished_run_is_resumed_without_another_step(run, uninterrupted, tmp_path):
    directory = Path(shutil.copytree(uninterrupted.directory, tmp_path / "run"))
    shutil.rmtree(directory / "model")
    again = train(run, directory, resume=True)
    assert_same(again, uninterrupted)
    assert load_checkpoint(directory).config == uninterrupted.model.config, "and its model is written again"


def test_a_directory_that_holds_a_run_is_not_begun_anew(run, stopped):
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=r"already holds a run\. Continue it with --resume, or choose another --out"):
        train(run, stopped)
    assert {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()} == before


def test_a_run_with_another_config_is_not_resumed(run, stopped):
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    for changes, named in (
        ({"training.learning_rate": 1.0}, "training"),
        ({"model.num_layers": 3, "data.context": 32}, "data, model"),
    ):
        other = load_run(run.model_dump(), changes)
        with pytest.raises(ConfigError, match=rf"another config \(its {named} differ, see .*run\.yaml\)"):
            train(other, stopped, resume=True)
    assert {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()} == before


def test_changed_data_are_not_trained_on(run, stopped, tmp_path):
    text = Path(run.data.source)
    before = text.read_text(encoding="utf-8")
    state = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file() and path.name != "run.lock"}
    try:
        for changed, message in (
            (before + "one more line\n", r"begun with other data \(training: \d+ tokens with .* then, \d+ tokens with"),
            (
                before.replace("fox", "dog"),
                r"other data \(.*held out: .* Give it the data it began with, or begin another",
            ),
        ):
            text.write_text(changed, encoding="utf-8")
            with pytest.raises(ConfigError, match=message):
                train(run, stopped, resume=True)
    finally:
        text.write_text(before, encoding="utf-8")
    for path, content in state.items():
        assert path.read_bytes() == content, path


def test_a_run_of_a_release_that_kept_nothing_of_its_data_is_resumed(run, stopped, uninterrupted, caplog):
    (stopped / "data.json").unlink()
    assert_same(train(run, stopped, resume=True), uninterrupted)
    assert "data.json is missing: whether the run began with these data cannot be checked" in caplog.text


def test_a_directory_is_one_run_s_at_a_time(run, stopped, uninterrupted):
    """The run that was killed left its lock, which a process holds no longer than it lives."""
    with claimed(stopped, leads=True):
        begin(run, stopped, resume=True, leads=True)
        whose = rf"is in use by process {os.getpid()} on {re.escape(socket.gethostname())} since 20\d\d-"
        for resume in (True, False):
            with pytest.raises(ConfigError, match=whose):
                train(run, stopped, resume=resume)
        load_checkpoint(stopped / "checkpoints" / "checkpoint-10")
    assert_same(train(run, stopped, resume=True), uninterrupted)


def test_a_checkpoint_s_directory_is_no_run_s(run, stopped, uninterrupted):
    for held in (uninterrupted.directory / "model", stopped / "checkpoints" / "checkpoint-10"):
        before = {path: path.read_bytes() for path in held.rglob("*") if path.is_file()}
        for resume in (True, False):
            with pytest.raises(ConfigError, match=r"is a checkpoint's directory: it holds .*Choose another --out"):
                train(run, held, resume=resume)
        assert {path: path.read_bytes() for path in held.rglob("*") if path.is_file()} == before


def test_a_directory_has_a_name(run, run_file, spectral, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="has no name"):
        train(run, "")
    spectral("train", run_file, "--out", "").refused("the run's directory has no name. Give one: --out DIRECTORY")
    assert not list(tmp_path.iterdir())


def test_a_tokenizer_that_a_killed_run_left_is_not_another_run_s(run, tmp_path):
    learned = {"model.vocab_size": 300, "training.steps": 1}
    for size in (270, 290):  # the first one saved nothing
        directory = tmp_path / "run"
        train(load_run(run.model_dump(), {**learned, "data.tokenizer": {"type": "bpe", "vocab_size": size}}), directory)
        assert load_tokenizer(directory).vocab_size == size
        for saved in ("model", "checkpoints"):
            shutil.rmtree(directory / saved)


def test_a_run_begun_by_a_release_with_other_defaults_is_not_resumed(run, stopped):
    """Its run.yaml leaves open what this release fills in otherwise, embed_scale say."""
    checkpoint = stopped / "checkpoints" / "checkpoint-10"
    record = json.loads((checkpoint / CONFIG).read_text())
    record["schema_version"] = 2
    (checkpoint / CONFIG).write_text(json.dumps(record))
    files = json.loads((checkpoint / TRAINING_MARKER).read_text())
    write_marker(checkpoint, TRAINING_MARKER, files)
    with pytest.raises(CheckpointError, match=r"checkpoint-10 has schema version 2, .* Finish the run with the"):
        train(run, stopped, resume=True)


def test_a_run_whose_config_is_lost_or_damaged_is_neither_overwritten_nor_misread(run, stopped):
    (stopped / "run.yaml").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"run\.yaml must be a mapping of keys to values"):
        train(run, stopped, resume=True)
    (stopped / "run.yaml").unlink()
    with pytest.raises(ConfigError, match="already holds a run"):
        train(run, stopped)
    with pytest.raises(ConfigError, match=r"run\.yaml is missing, and nothing else says with which config"):
        train(load_run(run.model_dump(), {"training.learning_rate": 1.0}), stopped, resume=True)


def test_a_run_that_saved_nothing_can_be_begun_anew_with_another_config(run, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.yaml").write_text("begun and killed at once\n", encoding="utf-8")
    short = load_run(run.model_dump(), {"training.steps": 1})
    train(short, tmp_path / "run")
    assert load_run(tmp_path / "run" / "run.yaml") == short


def test_every_training_checkpoint_is_a_model_of_its_own(killed, uninterrupted):
    earlier = load_checkpoint(killed / "checkpoints" / "checkpoint-5").state_dict()
    later = load_checkpoint(killed / "checkpoints" / "checkpoint-10").state_dict()
    last = load_checkpoint(uninterrupted.directory / "checkpoints" / "checkpoint-18").state_dict()
    for name, value in uninterrupted.model.state_dict().items():
        assert torch.equal(last[name], value), name
    assert not torch.equal(earlier["frontend.embedding.weight"], later["frontend.embedding.weight"])


def full_disk_for_weights(plain):
    def save_file(tensors, path, metadata=None):
        if "checkpoint-10" in str(path):
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        return plain(tensors, path, metadata=metadata)

    return save_file


def full_disk_for_optimizers(plain):
    def save(state, path, *args, **kwargs):
        if "checkpoint-10" in str(path) and "optimizer" in str(path):
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")
        return plain(state, path, *args, **kwargs)

    return save


def full_disk_for_markers(plain):
    def write_marker(directory, name, files):
        if directory.name == "checkpoint-10":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return plain(directory, name, files)

    return write_marker


@pytest.mark.parametrize(
    ("module", "name", "full_disk"),
    [
        (spectral_models.checkpoint, "save_file", full_disk_for_weights),
        (torch, "save", full_disk_for_optimizers),
        (spectral_models.training.trainer, "write_marker", full_disk_for_markers),
    ],
    ids=["weights", "optimizer", "marker"],
)
def test_a_full_disk_ends_the_run_and_leaves_the_checkpoint_before(
    run, uninterrupted, tmp_path, monkeypatch, module, name, full_disk
):
    """Each of the writers has an error of its own for a full disk; all must come out as ours."""
    with monkeypatch.context() as patch:
        patch.setattr(module, name, full_disk(getattr(module, name)))
        with pytest.raises(CheckpointError, match=r"could not save .*Free space, then continue .* with --resume"):
            train(run, tmp_path / "run")
    newest = newest_complete(tmp_path / "run" / "checkpoints")
    assert newest == tmp_path / "run" / "checkpoints" / "checkpoint-5"
    load_checkpoint(newest)
    if name == "save_file":
        assert_same(train(run, tmp_path / "run", resume=True), uninterrupted)


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "No space left on device. Free space, then continue"),
        (errno.EDQUOT, "quota"),
        (errno.EFBIG, "File too large. Raise the limit on the size of files"),
        (errno.EIO, "Input/output error. Choose another path"),
        (errno.EACCES, "Permission denied. Choose another path"),
        (errno.EROFS, "Read-only file system. Choose another path"),
    ],
)
def test_only_a_full_disk_is_called_one(number, advice):
    for error in (OSError(number, os.strerror(number)), SafetensorError(f"I/O error: x (os error {number})")):
        said = str(not_written("could not save X", error, ", then continue."))
        assert said.startswith("could not save X: ")
        assert advice in said
        assert ("Free space" in said) == (number in (errno.ENOSPC, errno.EDQUOT))


def test_a_file_that_cannot_be_read_is_not_called_a_full_disk(run, tmp_path, monkeypatch):
    def unreachable(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(RandomWindows, "__getitem__", unreachable)
    with pytest.raises(CheckpointError, match=r"the run in .* stopped: Input/output error\. Mend that, then continue"):
        train(run, tmp_path / "run")


def test_a_full_disk_at_the_very_end_is_an_error_of_ours_too(run, tmp_path, monkeypatch, uninterrupted):
    """The model is trained and saved among the checkpoints; only the last copy of it fails."""
    directory = Path(shutil.copytree(uninterrupted.directory, tmp_path / "run"))
    shutil.rmtree(directory / "model")
    plain = spectral_models.checkpoint.save_file

    def save_file(*args, **kwargs):
        plain(*args, **kwargs)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(spectral_models.checkpoint, "save_file", save_file)
        with pytest.raises(CheckpointError, match=r"No space left on device"):
            train(run, directory, resume=True)
    assert not (directory / "model").exists()
    assert_same(train(run, directory, resume=True), uninterrupted)


def test_a_directory_that_cannot_be_written_is_refused(run, tmp_path):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"cannot write to .*file/run: .* Choose another --out"):
        train(run, tmp_path / "file" / "run")
