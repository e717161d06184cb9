"""What PyTorch's own tools ask of a model: per-sample gradients by torch.func, and torch.export of the model itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.utils import _pytree

from spectral_core import UnsupportedInputError
from spectral_layers import FEEDFORWARDS, MIXERS
from spectral_models import build_model

SMALL = {"vocab_size": 32, "hidden_dim": 32, "num_layers": 1}
CAUSAL = [name for name, config in MIXERS.configs().items() if "causal" in config.directions]
DELTA_RULE = {"type": "holographic", "decay": "per_token", "update": "delta"}
BLOCKS: list[dict[str, Any]] = [
    *({"mixer": mixer} for mixer in [*CAUSAL, DELTA_RULE]),
    *({"mixer": "gated_convolution", "feedforward": name} for name in FEEDFORWARDS.configs()),
]


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_gradients_of_samples_by_vmap_are_those_of_a_loop(block: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = build_model({**SMALL, "fft": "hierarchical", "block": block}).eval()
    ids = torch.randint(0, 32, (3, 12))

    def loss(parameters: dict[str, Tensor], row: Tensor) -> Tensor:
        logits = functional_call(model, parameters, (row[None],)).logits[0]
        return torch.nn.functional.cross_entropy(logits[:-1], row[1:])

    parameters = dict(model.named_parameters())
    at_once = vmap(grad(loss), (None, 0))({name: each.detach() for name, each in parameters.items()}, ids)
    for index, row in enumerate(ids):
        wanted = torch.autograd.grad(loss(parameters, row), list(parameters.values()), allow_unused=True)
        for name, each in zip(parameters, wanted, strict=True):
            expected = torch.zeros_like(parameters[name]) if each is None else each
            torch.testing.assert_close(at_once[name][index], expected, rtol=1e-3, atol=1e-5)


def test_ids_out_of_range_are_refused_outside_of_transforms() -> None:
    model = build_model({**SMALL, "block": "dense"})
    with pytest.raises(UnsupportedInputError, match="token ids run from 0 to 31"):
        model(torch.tensor([[1, 32]]))


def export_cases() -> dict[str, tuple[dict[str, Any], tuple[Any, ...]]]:
    ids, picture = torch.randint(0, 32, (2, 12)), torch.randn(2, 3, 32, 32)
    text = {**SMALL, "block": "dense"}
    encoder = {**text, "type": "encoder"}
    seen = {"type": "vision_encoder", "hidden_dim": 32, "num_layers": 1, "block": "dense"}
    heard = {"type": "audio_encoder", "hidden_dim": 32, "num_layers": 2, "block": "dense"}
    return {
        "language_model": (text, (ids,)),
        "encoder": ({**encoder, "masked_lm": True}, (ids,)),
        "vision_encoder": (seen, (picture,)),
        "audio_encoder": (heard, (torch.randn(2, 4000),)),
        "classifier": ({"type": "classifier", "num_labels": 3, "encoder": encoder}, (ids,)),
        "token_classifier": ({"type": "token_classifier", "num_labels": 3, "encoder": encoder}, (ids,)),
        "seq2seq": ({**text, "type": "seq2seq", "encoder": encoder}, (ids, ids)),
        "multimodal": (
            {"type": "multimodal", "num_labels": 3, "encoders": {"text": encoder, "image": seen}},
            ({"text": ids, "image": picture},),
        ),
    }


@pytest.mark.parametrize("kind", list(export_cases()))
def test_a_model_is_exported_as_it_is(kind: str) -> None:
    torch.manual_seed(0)
    config, inputs = export_cases()[kind]
    model = build_model(config).eval()
    program = torch.export.export(model, inputs)
    found, wanted = program.module()(*inputs), model(*inputs)
    assert type(found) is type(wanted)
    torch.testing.assert_close(_pytree.tree_leaves(found), _pytree.tree_leaves(wanted), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_decoding_step_is_exported_with_its_state() -> None:
    torch.manual_seed(0)
    model = build_model({**SMALL, "block": "dense"}).eval()
    ids = torch.randint(0, 32, (2, 9))
    state = model(ids[:, :8], return_state=True).state
    given = {"state": state.clone(), "return_state": True}
    program = torch.export.export(model, (ids[:, 8:],), given)
    output = program.module()(ids[:, 8:], state=state.clone(), return_state=True)
    torch.testing.assert_close(output.logits[:, 0], model(ids).logits[:, 8], rtol=1e-4, atol=1e-5)
    assert output.state.position.tolist() == [9, 9]
