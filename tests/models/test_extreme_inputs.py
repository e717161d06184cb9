"""Sounds and pictures of extreme values: finite logits that depend on them, or one clear error, of every front end."""

from __future__ import annotations

import pytest
import torch

from spectral_core import UnsupportedInputError
from spectral_layers import FRONTENDS
from spectral_models import build_model

MODELS = {"image": "vision_encoder", "audio": "audio_encoder"}
MEDIA = [name for name, config in FRONTENDS.configs().items() if config.modality in MODELS]
VALUES = [0.0, 1e-45, -1e-38, 1.0, -1.0, 32767.0, 65504.0, 1e10, 1e18, 1e19, 1e20, -1e30, 3.4e38]
SHAPES = {
    "constant": lambda inputs, value: torch.full_like(inputs, value),
    "one value": lambda inputs, value: inputs.flatten(1).index_fill(1, torch.tensor([1]), value).view_as(inputs),
    "noise": lambda inputs, value: inputs.sign() * value,
}


def classifier(name: str, norm: str = "rms_norm", dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """As initialised, so that the head's bias is 0."""
    torch.manual_seed(0)
    config = FRONTENDS.configs()[name]
    encoder = {"type": MODELS[config.modality], "frontend": name, "mixing": "sequence", "hidden_dim": 16}
    encoder |= {"num_layers": 1, "block": {"mixer": "fourier", "feedforward": "mlp", "norm": norm}}
    return build_model({"type": "classifier", "encoder": encoder}).eval().to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("norm", ["rms_norm", "layer_norm"])
@pytest.mark.parametrize("name", MEDIA)
def test_extreme_values_give_finite_logits_or_are_refused(name, norm, dtype):
    """Never 0, which is what a norm makes of features whose squares are infinite."""
    model = classifier(name, norm, dtype)
    example = model.encoder.frontend.example(2).double()
    refused = 0
    for value in VALUES:
        for shape in SHAPES.values():
            inputs = shape(example, value).to(dtype)  # the largest become infinite in half precision
            try:
                with torch.no_grad():
                    logits = model(inputs).logits
            except UnsupportedInputError as error:
                refused += 1
                assert "not finite or too large" in str(error)  # noqa: PT017
                assert abs(value) > 1e3
            else:
                assert logits.isfinite().all()
                assert logits.any(-1).all()
    assert refused or dtype == torch.float64, "the largest are refused"


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", MEDIA)
def test_what_is_no_number_is_refused_with_its_row(name, value):
    model = classifier(name)
    inputs = model.encoder.frontend.example(3)
    inputs[1].view(-1)[5] = value
    with pytest.raises(UnsupportedInputError, match=r"rows \[1\] hold values that are not finite"):
        model(inputs)


@pytest.mark.parametrize("name", [name for name in MEDIA if FRONTENDS.configs()[name].modality == "audio"])
def test_padding_may_hold_anything(name):
    model = classifier(name)
    inputs = model.encoder.frontend.example(2)
    mask = torch.ones(inputs.shape, dtype=torch.long)
    mask[0, inputs.shape[1] // 2 :] = 0
    with torch.no_grad():
        expected = model(inputs, mask).logits
        for value in (torch.nan, torch.inf, 1e30):
            assert torch.equal(model(inputs.masked_fill(mask == 0, value), mask).logits, expected)


@pytest.mark.parametrize("value", [1e30, torch.inf])
@pytest.mark.parametrize("name", MEDIA)
def test_where_no_value_can_be_read_logits_are_not_numbers(name, value):
    """As on an accelerator, in a trace and under torch.func: NaN is noticed, 0 is not."""
    model = classifier(name)
    inputs = model.encoder.frontend.example(2)
    inputs[1].view(-1)[5] = value
    with torch.no_grad():
        logits = torch.func.vmap(lambda one: model(one[None]).logits[0])(inputs)
        assert torch.equal(logits.isfinite().all(-1), torch.tensor([True, False]))
        assert logits[1].isnan().all()
        torch.testing.assert_close(logits[0], model(inputs[:1]).logits[0])


def test_weights_that_are_not_numbers_are_not_blamed_on_the_inputs():
    model = classifier("patches")
    with torch.no_grad():
        model.encoder.frontend.proj.weight.fill_(torch.nan)
        assert model(model.encoder.frontend.example(1)).logits.isnan().all()
