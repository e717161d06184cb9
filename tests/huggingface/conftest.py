"""Small models with weights that tell tokens apart, and no way out to a network."""

from __future__ import annotations

import pytest
import torch

from spectral_models import build_model
from spectral_models.variants.language_model import LanguageModel

LANGUAGE_MODEL = {
    "hidden_dim": 16,
    "num_layers": 3,
    "position": "rope",
    "tie_embeddings": False,
    "layers": [
        {"mixer": {"type": "gated_convolution", "filter": {"type": "resonant", "modes": 2}}},
        {"mixer": {"type": "holographic", "phases": 4, "head_dim": 8}},
        {"mixer": {"type": "gated_convolution", "filter": {"type": "hankel", "length": 64, "vectors": 4}}},
    ],
}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")


@pytest.fixture
def language_model() -> LanguageModel:
    torch.manual_seed(0)
    model = build_model(LANGUAGE_MODEL)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 + 0.5 * torch.randn_like(parameter))
        model.head.weight.mul_(20)
    return model.eval()
