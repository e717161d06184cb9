"""One small model of every kind, and no way out to a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    AutoModelForAudioClassification,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    Trainer,
    TrainingArguments,
)
from transformers.utils import logging

from spectral_models import build_model
from spectral_models.integrations import huggingface as hf
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
BLOCK = {
    "mixer": {"type": "gated_convolution", "filter": {"type": "resonant", "modes": 2}},
    "feedforward": {"type": "moe", "experts": 2, "active": 1},
}
SMALL = {"hidden_dim": 16, "num_layers": 2, "block": BLOCK}
TEXT = {"type": "encoder", "vocab_size": 40, **SMALL}
PICTURES = {"type": "vision_encoder", "frontend": {"type": "patches", "size": 2, "channels": 1}, **SMALL}
MEL = {"type": "mel", "sample_rate": 4000, "n_fft": 64, "hop_length": 20, "n_mels": 6, "bands": 3}
SOUND = {"type": "audio_encoder", "frontend": MEL, **SMALL}
FUSION = {"type": "source_product", "head_dim": 8, "phases": 4}
SEQ2SEQ = {"type": "seq2seq", "vocab_size": 40, "encoder": TEXT, "fusion": FUSION, "eos_token_id": 1, **SMALL}


@dataclass(frozen=True)
class Kind:
    """A class of ours, the Auto class that finds it, and a model for it, whose inputs go by ``input_name``."""

    cls: Any
    auto: Any
    config: dict[str, Any]

    def model(self) -> Any:
        torch.manual_seed(0)
        return self.cls.wrap(build_model(self.config)).eval()

    def batch(self, rows: int = 4) -> dict[str, Tensor]:
        """Inputs, by the names forward() has for them, and labels."""
        generator = torch.Generator().manual_seed(1)
        tokens = torch.randint(40, (rows, 12), generator=generator)
        inputs = {
            "input_ids": tokens,
            "pixel_values": torch.randn(rows, 1, 6, 4, generator=generator),
            "input_values": 0.1 * torch.randn(rows, 200, generator=generator),
        }
        name = self.cls.main_input_name
        return {name: inputs[name], "labels": self.labels(rows, tokens)}

    def labels(self, rows: int, tokens: Tensor) -> Tensor:
        if "num_labels" not in self.config:
            return tokens
        return tokens % 3 if self.config["type"] == "token_classifier" else torch.arange(rows) % 3

    def logits(self, model: Any) -> Tensor:
        """Of the batch, from a model of ours or a class around it."""
        batch = self.batch()
        target = {"decoder_input_ids": F.pad(batch["labels"][:, :-1], (1, 0))} if self.config is SEQ2SEQ else {}
        with torch.no_grad():
            logits: Tensor = model.eval()(batch[self.cls.main_input_name], **target).logits
        return logits


def classifier(encoder: dict[str, Any]) -> dict[str, Any]:
    return {"type": "classifier", "num_labels": 3, "encoder": encoder}


KINDS = {
    "causal": Kind(hf.SpectralForCausalLM, AutoModelForCausalLM, {"type": "language_model", "vocab_size": 40, **SMALL}),
    "masked": Kind(hf.SpectralForMaskedLM, AutoModelForMaskedLM, {**TEXT, "masked_lm": True}),
    "seq2seq": Kind(hf.SpectralForSeq2SeqLM, AutoModelForSeq2SeqLM, SEQ2SEQ),
    "text": Kind(hf.SpectralForSequenceClassification, AutoModelForSequenceClassification, classifier(TEXT)),
    "tokens": Kind(
        hf.SpectralForTokenClassification,
        AutoModelForTokenClassification,
        {"type": "token_classifier", "num_labels": 3, "encoder": TEXT},
    ),
    "pictures": Kind(hf.SpectralForImageClassification, AutoModelForImageClassification, classifier(PICTURES)),
    "sound": Kind(hf.SpectralForAudioClassification, AutoModelForAudioClassification, classifier(SOUND)),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture
def kinds() -> dict[str, Kind]:
    return KINDS


@pytest.fixture
def text() -> Kind:
    return KINDS["text"]


@pytest.fixture
def language_model() -> LanguageModel:
    """With weights that tell tokens apart, or it would say one token again and again."""
    torch.manual_seed(0)
    model = build_model(LANGUAGE_MODEL)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 + 0.5 * torch.randn_like(parameter))
        model.head.weight.mul_(20)
    return model.eval()


def _rows(batch: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    return [dict(zip(batch, row, strict=True)) for row in zip(*batch.values(), strict=True)]


def _trainer(model, directory: Path, batch: dict[str, torch.Tensor], **options) -> Trainer:
    arguments = TrainingArguments(
        output_dir=str(directory),
        **{
            "max_steps": 6,
            "per_device_train_batch_size": 4,
            "learning_rate": 1e-2,
            "report_to": [],
            "save_strategy": "no",
            "disable_tqdm": True,
            "use_cpu": True,
            "logging_steps": 1,
            "dataloader_pin_memory": False,
            **options,
        },
    )
    return Trainer(model, arguments, train_dataset=_rows(batch), eval_dataset=_rows(batch))


@pytest.fixture
def trainer() -> Callable[..., Trainer]:
    """``trainer(model, directory, batch, **arguments)``: Trainer over the rows of a batch, on the CPU."""
    return _trainer


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is looked up, nothing is uploaded, no progress is drawn."""
    monkeypatch.setattr("socket.socket.connect", _refused)
    logging.disable_progress_bar()


def _refused(*_: object) -> None:
    raise AssertionError("a test reached for the network")
