"""Checkpoints in other precisions: every command takes them, and what cannot be computed with is refused by name."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy.io import wavfile

from spectral_models import CheckpointError, build_model, load_checkpoint, save_checkpoint
from spectral_models.checkpoint import WEIGHTS
from spectral_models.record import CONFIG
from spectral_models.seal import MARKER, write_marker

BLOCK = {"hidden_dim": 8, "num_layers": 2, "block": {"mixer": "gated_convolution", "feedforward": "mlp"}}
ENCODERS = {
    "texts": {"type": "encoder", **BLOCK},
    "pictures": {"type": "vision_encoder", **BLOCK, "image_size": [8, 12], "frontend": {"type": "patches", "size": 4}},
    "sounds": {
        "type": "audio_encoder",
        "mixing": "sequence",
        **BLOCK,
        "frontend": {"type": "mel", "sample_rate": 8000},
    },
}
PRECISIONS = [torch.float16, torch.float64]  # bfloat16 is refused by as many operations as float16, and no more
precisions = pytest.mark.parametrize("dtype", PRECISIONS, ids=str)


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """Something for each encoder to read, and a folder of the same with labels."""
    place = tmp_path_factory.mktemp("read")
    generator = np.random.default_rng(0)
    (place / "text.txt").write_text("the quick brown fox\n" * 40)
    (place / "table.csv").write_text("text,label\n" + "".join(f"number {i},{i % 2}\n" for i in range(6)))
    for label in "01":
        for kind in ("pictures", "sounds"):
            (place / kind / label).mkdir(parents=True)
        Image.fromarray(generator.integers(0, 255, (8, 12, 3), np.uint8)).save(place / "pictures" / label / "a.png")
        wavfile.write(place / "sounds" / label / "a.wav", 8000, generator.integers(-9999, 9999, 800, np.int16))
    return {
        "text": place / "text.txt",
        "texts": ("the fox", place / "table.csv"),
        "pictures": (place / "pictures" / "0" / "a.png", place / "pictures"),
        "sounds": (place / "sounds" / "0" / "a.wav", place / "sounds"),
    }


@precisions
@pytest.mark.parametrize("kind", ENCODERS)
def test_every_command_takes_a_classifier_in_any_precision(kind, dtype, read, spectral, tmp_path):
    torch.manual_seed(0)
    model = build_model({"type": "classifier", "encoder": ENCODERS[kind]}).eval()
    whole = save_checkpoint(model, tmp_path / "whole")
    other = save_checkpoint(model.to(dtype), tmp_path / "other")
    item, data = read[kind]
    found = {}
    for path in (whole, other):
        labelled = spectral("classify", path, item, "--json")
        embedded = spectral("embed", path, item)
        for ended in (labelled, embedded):
            assert ended.code == 0, ended
        found[path] = [*json.loads(labelled.out)["probabilities"].values(), *json.loads(embedded.out)["embedding"]]
    np.testing.assert_allclose(found[other], found[whole], atol=0.03)
    if (kind, dtype) == ("pictures", torch.float16):  # files are read in the same way, and texts are no numbers
        judged = spectral("evaluate", other, "--data", data)
        assert judged.code == 0, judged
        assert spectral("inspect", other).code == 0


@precisions
def test_every_command_takes_a_language_model_in_any_precision(dtype, read, spectral, tmp_path):
    torch.manual_seed(0)
    model = build_model(BLOCK).eval()
    whole = save_checkpoint(model, tmp_path / "whole")
    other = save_checkpoint(model.to(dtype), tmp_path / "other")
    bits = []
    for path in (whole, other):
        assert spectral("generate", path, "--max-new-tokens", 3, "--temperature", 0).code == 0
        judged = spectral("evaluate", path, "--data", read["text"], "--context", 32)
        assert judged.code == 0, judged
        bits.append(float(judged.out.split()[3]))
    assert bits[1] == pytest.approx(bits[0], abs=0.02)
    assert spectral("inspect", other).code == 0


def test_a_program_is_made_of_half_precision(spectral, tmp_path):
    saved = save_checkpoint(build_model(ENCODERS["pictures"]).half(), tmp_path / "saved")
    ended = spectral("export", saved, tmp_path / "model.pt2")
    assert ended.code == 0, ended


def resigned(directory, change):
    weights = load_file(directory / WEIGHTS)
    change(weights)
    save_file(weights, directory / WEIGHTS, metadata={"format": "pt"})
    write_marker(directory, MARKER, [CONFIG, WEIGHTS])
    return directory


@pytest.mark.parametrize(
    "dtype",
    [torch.float16, torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.int64, torch.bool, torch.complex64],
    ids=str,
)
@pytest.mark.parametrize("share", ["one", "all"])
def test_weights_that_cannot_be_computed_with_are_refused_by_name(share, dtype, tmp_path):
    saved = save_checkpoint(build_model(BLOCK), tmp_path / "saved")
    names = sorted(load_file(saved / WEIGHTS))

    def change(weights):
        for name in names[:1] if share == "one" else names:
            weights[name] = weights[name].to(dtype)

    resigned(saved, change)
    if (share, dtype) == ("all", torch.float16):
        assert next(load_checkpoint(saved).parameters()).dtype == dtype
        return
    with pytest.raises(CheckpointError, match=rf"model\.safetensors .*{names[0]} is (torch\.)?{str(dtype)[6:]}\b"):
        load_checkpoint(saved)
