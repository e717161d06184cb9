"""No command overwrites what it reads, or puts a file into a checkpoint: whatever path, link or option says so."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from spectral_core import ConfigError
from spectral_models import build_model, load_checkpoint, save_checkpoint
from spectral_models.cli.outputs import check_output

MODEL = {"hidden_dim": 16, "num_layers": 1}
ENCODER = {**MODEL, "type": "encoder", "layers": [{"mixer": "fourier", "feedforward": "mlp"}]}


def digests(folder: Path) -> dict[str, str]:
    """Every file below a folder, by its content."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def world(tmp_path, monkeypatch) -> Path:
    """Checkpoints of a language model and of an encoder, a run, a data folder, links to them."""
    torch.manual_seed(0)
    language = build_model(MODEL)
    save_checkpoint(language, tmp_path / "model")
    save_checkpoint(build_model(ENCODER), tmp_path / "encoder")
    save_checkpoint(language, tmp_path / "run" / "model")
    (tmp_path / "run" / "run.yaml").write_text("model: {}\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "text.txt").write_text("a line of text\n" * 500)
    (tmp_path / "vectors.npy").write_text("a text\n")
    (tmp_path / "hard.npy").hardlink_to(tmp_path / "vectors.npy")
    (tmp_path / "link.npy").symlink_to("vectors.npy")
    (tmp_path / "link").symlink_to("model")
    (tmp_path / "above").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


COMMANDS = [
    *(["quantize", "model", out] for out in ("model", "./model/", "model/../model", "link", "above/model", "above")),
    *(["quantize", "link", out] for out in ("model", "model/inside", "encoder/inside")),
    *(["quantize", "run", out] for out in ("run", "run/model", "run/../run/model/x")),
    ["quantize", "model", "data", "--data", "data/text.txt"],
    ["quantize", "model", "data/int8", "--data", "data"],
    *(["quantize", "model", out] for out in ("encoder", "run/model")),  # float weights of another model
    *(["export", "model", out] for out in ("model/made.pt2", "link/made.onnx", "encoder/made.pt2", "run/model/x.pt2")),
    ["export", "model", "model", "--format", "torch"],
    *(["export", "model", out, "--format", "torch"] for out in ("model/model.safetensors", "data/text.txt")),
    *(["embed", "encoder", "--file", "vectors.npy", "--out", out] for out in ("vectors.npy", "hard.npy", "link.npy")),
    ["embed", "encoder", "a", "--out", "encoder/made.npy"],
    ["embed", "encoder", "a", "--out", "model/deep/made.npy"],
    *(["inspect", "model", "--out", out] for out in ("model", "link", "model/pictures", "encoder")),
    *(
        ["train", "tiny", "--data", "data", "--out", out]
        for out in ("data", "data/run", "above/data/x", "model", "link")
    ),
    ["bench", "fft", "--out", "model"],
    ["plugins", "new", "acme", "--kind", "gate", "--directory", "model"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_what_a_command_reads_and_every_checkpoint_stay_as_they_were(world, spectral, monkeypatch, command):
    def loaded(*_: object, **__: object) -> None:
        raise AssertionError("outputs are checked before any work")

    for name in ("quantize", "export", "embed", "inspect"):
        monkeypatch.setattr(f"spectral_models.cli.{name}.load_checkpoint", loaded)
    before = digests(world)
    spectral(*command).refused("is an input|lies in|not int8|not a program's")
    assert digests(world) == before


def test_outputs_beside_what_is_read_are_allowed(world):
    check_output(Path("run/inspection"), ["run"])
    check_output(Path("run/int8"), ["run"], replaced=True)
    check_output(Path("model-int8"), ["model", "data"], replaced=True)
    check_output(Path("data"), ["data/text.txt"])
    check_output(Path("new/deep/made.npy"), ["encoder", "a text", "x" * 5000, "", "stdlib", "datasets:a/b"])
    check_output(Path("made.npy"), ["vectors.npy"])


def test_an_output_of_no_path_is_one_error(world):
    with pytest.raises(ConfigError, match="File name too long"):
        check_output(Path("x" * 5000))


def test_a_quantised_checkpoint_is_replaced_by_a_newer_one(world, spectral):
    pytest.importorskip("torchao")
    for _ in range(2):
        ended = spectral("quantize", "model", "int8", "--data", "data/text.txt")
        assert ended.code == 0, ended
    assert load_checkpoint("int8") is not None
