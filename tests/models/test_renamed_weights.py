"""Weights that a part or a model has renamed are read under their earlier names, wherever the part stands."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from spectral_layers.filters.resonant import Resonant
from spectral_layers.mixers.gated_convolution import GatedConvolution
from spectral_models import CheckpointError, build_model
from spectral_models.model import SpectralModel
from spectral_models.variants.language_model import LanguageModel
from spectral_models.weights import earlier_names, put_weights

ENCODER = {"type": "encoder", "hidden_dim": 8, "num_layers": 1, "block": "dense", "vocab_size": 16}
DECODER = {"hidden_dim": 8, "num_layers": 2, "block": "dense", "vocab_size": 16}
MODELS = {
    "language_model": DECODER,
    "classifier": {"type": "classifier", "encoder": ENCODER, "num_labels": 2},
    "seq2seq": {"type": "seq2seq", "encoder": ENCODER, "fusion": {"type": "source_product", "head_dim": 8}, **DECODER},
}


def built(name: str, seed: int) -> SpectralModel:
    torch.manual_seed(seed)
    return build_model(MODELS[name])


def earlier(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights as an earlier release named them: the mixers' projections, their filter, a parameter of that."""
    for now, before in ((".in_proj.", ".into."), (".filter.log_decay", ".long.pace"), (".filter.", ".long.")):
        weights = {name.replace(now, before): tensor for name, tensor in weights.items()}
    return weights


@pytest.mark.parametrize("name", MODELS)
def test_parts_name_their_own_weights(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source, model = built(name, 0), built(name, 1)
    stored = earlier(source.state_dict())
    assert len(stored.keys() - source.state_dict().keys()) >= 3
    with pytest.raises(CheckpointError, match="does not fit its config"):
        put_weights(model, stored, Path("weights"))
    monkeypatch.setattr(GatedConvolution, "earlier_names", {"into": "in_proj", "long": "filter"}, raising=False)
    monkeypatch.setattr(Resonant, "earlier_names", {"pace": "log_decay"}, raising=False)
    put_weights(model, stored, Path("weights"))
    for key, tensor in source.state_dict().items():
        assert torch.equal(model.state_dict()[key], tensor)
    put_weights(built(name, 1), source.state_dict(), Path("weights"))


def test_a_subclass_inherits_the_names_and_adds_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class Further(LanguageModel):
        earlier_names = {"readout": "norm"}  # noqa: RUF012

    model = built("language_model", 0)
    model.__class__ = Further
    assert earlier_names(model) == {"embedding": "frontend.embedding", "readout": "norm"}
