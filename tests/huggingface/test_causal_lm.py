"""Our model as a PreTrainedModel: Hugging Face's conventions outside, nothing changed inside."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedModel

from spectral_core import ConfigError, UnsupportedInputError
from spectral_models import build_model, load_checkpoint, load_config
from spectral_models.integrations.huggingface import SpectralForCausalLM, SpectralHFConfig

MODEL = {
    "hidden_dim": 16,
    "num_layers": 2,
    "layers": [
        {"mixer": {"type": "gated_convolution", "filter": {"type": "resonant", "modes": 2}}},
        {
            "mixer": {"type": "holographic", "phases": 4, "head_dim": 8},
            "feedforward": {"type": "moe", "experts": 2, "active": 1},
        },
    ],
}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_model(MODEL)


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(0, 256, (3, 12), generator=torch.Generator().manual_seed(0))


def test_wrapping_changes_no_weight_and_no_output(model, tokens):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    logits = model(tokens).logits
    wrapped = SpectralForCausalLM.wrap(model)
    assert isinstance(wrapped, PreTrainedModel)
    assert wrapped.model is model
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert torch.equal(wrapped(tokens).logits, logits)
    assert wrapped.num_parameters() == sum(parameter.numel() for parameter in model.parameters())


def test_the_loss_takes_unshifted_labels_and_adds_the_parts_losses(model, tokens):
    """As everywhere in Hugging Face: labels are the input ids, the token at t + 1 is predicted at t."""
    wrapped = SpectralForCausalLM.wrap(model)
    training = wrapped(tokens, labels=tokens)
    output = wrapped.eval()(tokens, labels=tokens)
    assert callable(dict.get(training, "logits")), "in training the loss is made without the logits of all tokens"
    log_probability = output.logits.double().log_softmax(-1)
    nats = -torch.stack(
        [log_probability[row, t, tokens[row, t + 1]] for row in range(3) for t in range(tokens.shape[1] - 1)]
    ).mean()
    auxiliary = sum(output.losses.values())
    assert set(output.losses) == {"layers.1.feedforward.load_balancing", "layers.1.feedforward.router_z"}
    assert float(auxiliary.detach()) > 0
    torch.testing.assert_close(output.loss.double(), nats, rtol=1e-6, atol=0)
    torch.testing.assert_close(training.loss.double(), nats + auxiliary.double(), rtol=1e-6, atol=0)
    shifted = torch.cat([tokens[:, 1:], torch.full((3, 1), -100)], 1)
    assert torch.equal(wrapped(tokens, shift_labels=shifted).loss, output.loss)
    with pytest.raises(UnsupportedInputError, match="labels go without a cache"):
        wrapped.train()(tokens, labels=tokens, use_cache=True)


@pytest.mark.parametrize("training", [True, False])
def test_labels_at_padding_count_for_nothing(model, tokens, training):
    wrapped = SpectralForCausalLM.wrap(model).train(training)
    padded = torch.cat([torch.zeros(3, 4, dtype=torch.long), tokens], 1)
    mask = torch.cat([torch.zeros(3, 4, dtype=torch.long), torch.ones_like(tokens)], 1)
    found = wrapped(padded, mask, labels=padded).loss
    torch.testing.assert_close(found, wrapped(tokens, labels=tokens).loss, rtol=1e-5, atol=1e-6)


def test_kept_logits_are_the_last_columns(model, tokens):
    """Of left-padded rows the model makes no others; where a last column is padding, all are made and cut."""
    wrapped = SpectralForCausalLM.wrap(model).eval()
    left = torch.ones_like(tokens)
    left[0, :5] = 0
    with torch.no_grad():
        for mask, count in ((None, 1), (left, 1), (left, 9), (left.flip(1), 2)):
            whole = wrapped(tokens, mask).logits
            kept = wrapped(tokens, mask, logits_to_keep=count).logits
            assert kept.shape == whole[:, -count:].shape
            real = slice(None) if mask is None else mask[:, -count:].bool()
            torch.testing.assert_close(kept[real], whole[:, -count:][real])


def test_labels_of_minus_100_count_for_nothing(model, tokens):
    wrapped = SpectralForCausalLM.wrap(model).eval()
    labels = tokens.clone()
    labels[:, 8:] = -100
    labels[1] = -100
    output = wrapped(tokens, labels=labels)
    log_probability = output.logits.log_softmax(-1)
    nats = -torch.stack([log_probability[row, t, tokens[row, t + 1]] for row in (0, 2) for t in range(7)]).mean()
    torch.testing.assert_close(output.loss, nats)


def test_without_labels_there_is_no_loss(model, tokens):
    output = SpectralForCausalLM.wrap(model)(tokens)
    assert output.loss is None
    assert set(output) == {"logits", "losses", "metrics"}


def test_an_attention_mask_reaches_the_model(model, tokens):
    """Padding before a row, masked, leaves its logits where they were."""
    model.eval()
    padded = torch.cat([torch.zeros(3, 4, dtype=torch.long), tokens], 1)
    mask = torch.cat([torch.zeros(3, 4, dtype=torch.long), torch.ones_like(tokens)], 1)
    wrapped = SpectralForCausalLM.wrap(model)
    with torch.no_grad():
        plain, masked = wrapped(tokens).logits, wrapped(padded, mask).logits[:, 4:]
        unmasked = wrapped(padded).logits[:, 4:]
    torch.testing.assert_close(masked, plain, rtol=1e-4, atol=1e-6)
    assert (unmasked - plain).abs().max() > 1e-4, "without the mask it is another input"


def test_every_parameter_gets_the_gradient_it_has_without_the_wrapper(model, tokens):
    wrapped = SpectralForCausalLM.wrap(model)
    wrapped(tokens, labels=tokens).loss.backward()
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    output = model(tokens)
    nats = torch.nn.functional.cross_entropy(output.logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    (nats + sum(output.losses.values())).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-5, atol=1e-8, msg=name)
        assert found[name].abs().max() > 0, name


def test_what_is_saved_loads_both_ways(model, tokens, tmp_path):
    SpectralForCausalLM.wrap(model).save_pretrained(tmp_path / "saved")
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == [
        "complete.json",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "modeling_spectral_networks.py",
    ]
    ours = load_checkpoint(tmp_path / "saved")
    theirs = SpectralForCausalLM.from_pretrained(tmp_path / "saved")
    model.eval()
    with torch.no_grad():
        logits = model(tokens).logits
        assert torch.equal(ours(tokens).logits, logits)
        assert torch.equal(theirs(tokens).logits, logits)
    assert theirs.model.config == model.config == ours.config


def test_saving_leaves_other_files_of_the_directory_alone(model, tmp_path):
    """Trainer keeps the optimiser beside the model."""
    (tmp_path / "optimizer.pt").write_bytes(b"state")
    SpectralForCausalLM.wrap(model).save_pretrained(tmp_path)
    assert (tmp_path / "optimizer.pt").read_bytes() == b"state"


def test_a_model_is_made_from_a_config_alone(model):
    config = SpectralHFConfig.of(load_config(MODEL))
    assert SpectralForCausalLM(config).model.config == model.config
    assert SpectralHFConfig.from_dict(config.to_dict()).spectral == config.spectral


def test_a_config_without_a_model_is_refused():
    with pytest.raises(ConfigError, match=r"holds no model: make it with SpectralHFConfig\.of\(config\)"):
        SpectralForCausalLM(SpectralHFConfig())


def test_the_embedding_is_where_hugging_face_looks_for_it(model):
    assert SpectralForCausalLM.wrap(model).get_input_embeddings() is model.frontend.embedding
