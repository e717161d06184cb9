"""A checkpoint of another variant, given to a command: what it holds, and what the command takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from spectral_core import SpectralError
from spectral_models import build_model, save_checkpoint
from spectral_models.cli.commands import app

SMALL = {"hidden_dim": 8, "num_layers": 1, "block": {"mixer": "gated_convolution", "feedforward": "mlp"}}
TEXT = {"type": "encoder", **SMALL}
MODELS: dict[str, dict[str, Any]] = {
    "language_model": {"type": "language_model", **SMALL},
    "encoder": TEXT,
    "multimodal": {
        "type": "multimodal",
        "hidden_dim": 8,
        "encoders": {"title": TEXT, "body": TEXT},
        "fusion": {"type": "cross_modal", "head_dim": 8},
    },
}


@pytest.mark.parametrize(
    ("command", "holds", "message"),
    [
        (["generate"], "encoder", "generate takes a language_model"),
        (["classify", "hi"], "language_model", r"classify takes a classifier.*spectral embed"),
        (["embed", "hi"], "language_model", "embed takes an encoder, vision_encoder or audio_encoder, or a classifier"),
        (["evaluate", "--data", "no.txt"], "encoder", "declares no task"),
    ],
)
def test_a_command_says_what_it_takes(command: list[str], holds: str, message: str, tmp_path: Path) -> None:
    saved = save_checkpoint(build_model(MODELS[holds]), tmp_path / "saved")
    name, *arguments = command
    found = CliRunner().invoke(app, [name, str(saved), *arguments]).exception
    with pytest.raises(SpectralError, match=rf"saved holds a model of type {holds}\b.*{message}"):
        raise found or AssertionError("it went through")
