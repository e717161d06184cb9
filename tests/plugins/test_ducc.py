"""A third party's FFT backend, really installed, and swapped in by its name in a language model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ducc0 = pytest.importorskip("ducc0", reason="ducc0, which this plugin wraps, is not installed: pip install ducc0")

DUCC = Path(__file__).parents[2] / "plugins" / "spectral-ducc"

SCRIPT = """
import json
import torch
from spectral_core import FFT_BACKENDS, convolve
from spectral_core.plugins import HOST
from spectral_models import build_model

def model(fft):
    torch.manual_seed(0)
    return build_model({
        "vocab_size": 16, "hidden_dim": 32, "num_layers": 2, "fft": fft,
        "block": {"mixer": "gated_convolution", "feedforward": "mlp"},
    })

def logits(fft):
    with torch.no_grad():
        return model(fft).eval()(tokens).logits

def error_of(function):
    try:
        function()
    except Exception as error:
        return {"type": type(error).__name__, "message": str(error)}

tokens = torch.arange(60).remainder(7)[None].repeat(3, 1) + torch.arange(3)[:, None]

def trained(fft):
    network = model(fft)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    losses = []
    for _ in range(2):
        loss = torch.nn.functional.cross_entropy(network(tokens[:, :-1]).logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses

expected, found = logits("torch"), logits("ducc/ducc0")
elsewhere = torch.zeros(1, 2, 8, device="meta")
print(json.dumps({
    "failures": [str(failure) for failure in HOST.failures()],
    "provider": FFT_BACKENDS.get("ducc/ducc0").provider,
    "config": model({"type": "ducc/ducc0", "threads": 1}).config.model_dump()["fft"],
    "size": expected.norm().item(),
    "difference": ((found - expected).norm() / expected.norm()).item(),
    "losses": {fft: trained(fft) for fft in ("torch", "ducc/ducc0")},
    "meta": error_of(lambda: convolve(elsewhere, elsewhere[0], backend="ducc/ducc0")),
    "misspelt": error_of(lambda: model("ducc/duc")),
}))
"""


@pytest.fixture(scope="module")
def answer(pip_install: Callable[[Path], Path], python: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    return python(SCRIPT, pip_install(DUCC), Path(ducc0.__file__).parent)


def test_it_is_known_by_its_name_alone(answer: dict[str, Any]) -> None:
    assert answer["failures"] == []
    assert answer["provider"] == "spectral-ducc"
    assert answer["config"] == {"type": "ducc/ducc0", "block_bytes": None, "threads": 1}


def test_the_same_logits_come_out(answer: dict[str, Any]) -> None:
    assert answer["size"] > 0.1
    assert 0 < answer["difference"] < 1e-5, "zero would mean that torch's backend had run twice"


def test_a_training_step_is_the_same_step(answer: dict[str, Any]) -> None:
    ours, theirs = answer["losses"]["ducc/ducc0"], answer["losses"]["torch"]
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert ours[1] < ours[0] - 0.01


def test_a_device_it_does_not_serve_is_refused_by_its_name(answer: dict[str, Any]) -> None:
    assert answer["meta"]["type"] == "UnsupportedInputError"
    assert answer["meta"]["message"].startswith("ducc/ducc0 cannot run this convolution: ")
    assert "device 'meta'" in answer["meta"]["message"]


def test_a_misspelt_name_is_corrected(answer: dict[str, Any]) -> None:
    assert "ducc/ducc0" in answer["misspelt"]["message"]
