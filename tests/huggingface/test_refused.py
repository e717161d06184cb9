"""A method that refuses leaves the model as it was: weights, config and logits; and what asks for no change is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from spectral_core import ConfigError, SpectralError, UnsupportedInputError
from spectral_models.quantization import quantize


def setting(name: str, value: Any) -> Callable[[Any], None]:
    return lambda model: setattr(model.config, name, value)


REFUSED: dict[str, Callable[[Any], Any]] = {
    "more tokens": lambda model: model.resize_token_embeddings(300),
    "fewer tokens": lambda model: model.resize_token_embeddings(3, mean_resizing=False),
    "rounded up": lambda model: model.resize_token_embeddings(40, pad_to_multiple_of=64),
    "rounded up alone": lambda model: model.resize_token_embeddings(pad_to_multiple_of=64),
    "another embedding": lambda model: model.set_input_embeddings(nn.Embedding(40, 16)),
    "another head": lambda model: model.set_output_embeddings(nn.Linear(16, 40)),
    "vocab_size": setting("vocab_size", 300),
    "hidden_size": setting("hidden_size", 8),
    "num_hidden_layers": setting("num_hidden_layers", 1),
    "max_position_embeddings": setting("max_position_embeddings", 7),
    "tie_word_embeddings": setting("tie_word_embeddings", "perhaps"),
    "weights of another": lambda model: model.load_state_dict({"model.norm.weight": torch.zeros(16)}, strict=False),
}


@pytest.mark.parametrize("call", REFUSED)
def test_a_refusal_changes_nothing(kind, call):
    model = kind.model()
    if call.startswith("rounded") and "vocab_size" not in str(kind.config):
        pytest.skip("nothing to round")
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config, logits = model.config.to_dict(), kind.logits(model)
    with pytest.raises(SpectralError):
        REFUSED[call](model)
    assert list(model.state_dict()) == list(weights)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert model.config.to_dict() == config
    assert torch.equal(kind.logits(model), logits)


def test_the_size_that_is_there_is_no_change(kinds):
    for name in ("causal", "masked", "seq2seq", "text"):
        model = kinds[name].model()
        embedding = model.get_input_embeddings()
        assert embedding.num_embeddings == 40
        for options in ((), (None,), (40,), (40, 8), (33, 8), (None, 20), (40, 0)):
            assert model.resize_token_embeddings(*options) is embedding
        with pytest.raises(
            UnsupportedInputError, match=r"this model's has 40 tokens; asked for 41\. Nothing was changed"
        ):
            model.resize_token_embeddings(41)


def test_a_refused_save_writes_nothing(kinds, tmp_path):
    model = kinds["causal"].model()
    quantize(model.model)
    with pytest.raises(ConfigError, match="int8 weights are kept by"):
        model.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
