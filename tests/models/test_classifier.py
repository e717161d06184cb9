"""The classifier: one label for a text, a picture or a sound, from any encoder; and that its mixing is what does it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from spectral_core import ConfigError, UnsupportedInputError
from spectral_models import MODELS, build_model, load_checkpoint, load_config, save_checkpoint
from spectral_models.assembly import components_of
from spectral_models.data import tones_batch
from spectral_models.variants.classifier import Classifier
from spectral_models.variants.encoding import EncoderConfig

BLOCK = {"mixer": {"type": "gated_convolution", "filter": {"type": "resonant", "modes": 2}}, "feedforward": "mlp"}
SMALL = {"hidden_dim": 16, "num_layers": 2, "block": BLOCK}
ENCODERS: dict[str, dict[str, Any]] = {
    "encoder": {"vocab_size": 13},
    "vision_encoder": {"frontend": {"type": "patches", "size": 2, "channels": 1}},
    "audio_encoder": {"frontend": {"type": "mel", "n_fft": 64, "hop_length": 20, "n_mels": 6, "bands": 3}},
}


def made(encoder: str = "encoder", **overrides: Any) -> Classifier:
    torch.manual_seed(0)
    parts = {"type": encoder, **SMALL, **ENCODERS[encoder]}
    model = build_model({"type": "classifier", "num_labels": 3, "encoder": parts}, **overrides)
    assert isinstance(model, Classifier)
    return model


def test_every_registered_encoder_is_tried() -> None:
    assert set(ENCODERS) == {name for name, config in MODELS.configs().items() if issubclass(config, EncoderConfig)}


@pytest.mark.parametrize("encoder", ENCODERS)
def test_any_encoder_classifies_trains_and_is_saved(encoder: str, tmp_path: Path) -> None:
    model = made(encoder, dropout=0.1)
    inputs, labels = model.encoder.frontend.example(4), torch.tensor([0, 1, 2, 0])
    if inputs.is_floating_point():
        inputs[labels == 1] *= 0.1
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    before = model.loss(inputs, labels).loss.item()
    for _ in range(40):
        optimizer.zero_grad()
        model.loss(inputs, labels).loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        output = model(inputs)
        assert output.logits.shape == (4, 3)
        assert model.loss(inputs, labels).loss.item() < 0.5 * before
        save_checkpoint(model, tmp_path / "saved")
        loaded = load_checkpoint(tmp_path / "saved")
        assert isinstance(loaded, Classifier)
        assert torch.equal(loaded(inputs).logits, output.logits)


def test_a_trained_encoder_goes_into_a_classifier_by_name() -> None:
    model = made()
    encoder = build_model(model.config.encoder)
    model.encoder.load_state_dict(encoder.state_dict())
    input_ids = torch.randint(13, (2, 9))
    with torch.no_grad():
        assert torch.equal(model.eval()(input_ids).pooled, encoder.eval()(input_ids).pooled)


@pytest.mark.parametrize("pooling", ["mean", "max", "cls", "last"])
def test_padding_changes_no_label(pooling: str) -> None:
    model = made(**{"encoder.pooling": pooling}).double().eval()
    long, short = torch.randint(13, (1, 9)), torch.randint(13, (1, 4))
    batch = torch.cat([long, torch.cat([torch.full((1, 5), 7), short], 1)])
    mask = torch.ones(2, 9)
    mask[1, :5] = 0
    with torch.no_grad():
        logits = model(batch, mask).logits
        torch.testing.assert_close(logits[:1], model(long).logits, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(logits[1:], model(short).logits, rtol=1e-10, atol=1e-12)


def test_auxiliary_losses_are_in_the_loss() -> None:
    model = made(**{"encoder.block.feedforward": {"type": "moe", "experts": 2, "active": 1}})
    inputs, labels = torch.randint(13, (4, 9)), torch.tensor([0, 1, 2, -100])
    output = model(inputs)
    plain = torch.nn.functional.cross_entropy(output.logits, labels)
    assert output.losses
    found = model.loss(inputs, labels)
    assert int(found.count) == 3, "-100 counts for nothing"
    torch.testing.assert_close(found.loss, plain + sum(output.losses.values()))
    router = next(p for name, p in model.named_parameters() if "router" in name)
    assert torch.autograd.grad(sum(output.losses.values()), router)[0].abs().max() > 0


def test_checkpointing_is_the_encoders() -> None:
    model = made()
    model.gradient_checkpointing = True
    assert model.encoder.gradient_checkpointing
    assert model.gradient_checkpointing


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            torch.tensor([0, 3]),
            r"labels run from 0 to 2 \(num_labels 3\), -100 .*; got 0 to 3\. Number them from 0.* num_labels",
        ),
        (torch.tensor([-1, 0]), "got -1 to 0"),
        (torch.tensor([0.0, 1.0]), r"one integer for each row, of shape \(2,\); got \(2,\) float32"),
        (torch.tensor([True, False]), "one integer for each row"),
        (torch.tensor([0, 1, 2]), r"of shape \(2,\); got \(3,\)"),
        (torch.zeros(2, 3, dtype=torch.long), r"got \(2, 3\)"),
    ],
)
def test_labels_that_are_none_are_refused(labels: Tensor, message: str) -> None:
    model = made()
    with pytest.raises(UnsupportedInputError, match=message):
        model.loss(torch.randint(13, (2, 5)), labels)


def test_options_of_another_encoder_are_refused() -> None:
    with pytest.raises(UnsupportedInputError, match=r"type is 'encoder', .* no option 'sample_rate'; it has none"):
        made()(torch.randint(13, (2, 5)), sample_rate=16_000)
    with pytest.raises(UnsupportedInputError, match=r"'audio_encoder', .* no option 'rate'; it has sample_rate"):
        made("audio_encoder")(torch.randn(2, 200), rate=16_000)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"encoder": "language_model"}, r"^encoder: 'language_model' is not an encoder\. Encoders: .*vision_encoder"),
        ({"encoder": "classifier"}, "^encoder: 'classifier' is not an encoder"),
        ({"num_labels": 1}, "^num_labels: classification needs 2 labels or more"),
        ({"encoder.pooling": "sum"}, r"^encoder\.pooling: "),
        ({"encoder.block.mixer": "holographic"}, r"^encoder\.block\.mixer: 'holographic' sees the past only"),
        ({"encoder.block.mixr": "fourier"}, r"^encoder\.block\.mixr: unknown key\. Did you mean 'mixer'"),
    ],
)
def test_classifiers_that_cannot_work_are_refused_with_their_path(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config({"type": "classifier", "encoder": {"type": "encoder"}}, **overrides)


def test_what_cannot_be_built_is_refused_with_the_whole_path() -> None:
    with pytest.raises(ConfigError, match=r"^encoder\.position: the position 'learned' .* set the model's max_seq_len"):
        made(**{"encoder.position": "learned"})
    gating = {"type": "spectral_gating", "head_dim": 5}
    with pytest.raises(ConfigError, match=r"^encoder\.block\.mixer: head_dim 5 does not divide"):
        made(**{"encoder.block.mixer": gating})


def test_its_components_are_its_encoders_too() -> None:
    found = {(part.kind, part.name) for part in components_of(made("vision_encoder").config)}
    assert {("model", "classifier"), ("model", "vision_encoder"), ("frontend", "patches")} <= found


# The mixing is what does it


Batch = tuple[Tensor, Tensor]


def fitted(model: Classifier, train: Batch, test: Batch, *, epochs: int) -> float:
    """Accuracy on samples a plain loop over others has not seen."""
    steps = epochs * (len(train[1]) // 32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 0.5 * (1 + math.cos(math.pi * t / steps)))
    for _ in range(epochs):
        for inputs, labels in zip(*(part.split(32) for part in train), strict=True):
            optimizer.zero_grad()
            model.loss(inputs, labels).loss.backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        return float((model.eval()(test[0]).logits.argmax(-1) == test[1]).float().mean())


def tones(count: int, seed: int) -> Batch:
    return tones_batch(count, snr=-3.0, generator=torch.Generator().manual_seed(seed), samples=800)


def test_tones_in_noise_are_told_by_their_order() -> None:
    """Mixed along time, the order is heard, by no position; the mean of the mel frames does not hold it."""
    mel = {"type": "mel", "sample_rate": 4000, "n_fft": 128, "hop_length": 64, "n_mels": 12, "bands": 3}
    encoder = {"type": "audio_encoder", "frontend": mel, "hidden_dim": 24, "num_layers": 2, "position": "none"}
    torch.manual_seed(0)
    model = build_model({"type": "classifier", "encoder": {**encoder, "block": BLOCK}})
    assert fitted(model, tones(1024, 1), tones(512, 2), epochs=3) >= 0.97
    inputs, labels = tones(2048, 3)
    means = torch.log10(model.encoder.frontend.spectrogram(inputs)).mean(-1)
    means = torch.cat([(means - means.mean(0)) / means.std(0), torch.ones(2048, 1)], 1)
    weights = torch.linalg.lstsq(means[:1024], labels[:1024] * 2.0 - 1).solution
    told = ((means[1024:] @ weights > 0) == (labels[1024:] == 1)).float().mean()
    assert told < 0.6


def bars(count: int, seed: int) -> Batch:
    """Noisy pictures of 12 x 12 with two equal bright squares, side by side or one above the other, anywhere."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (count,), generator=generator)
    place = torch.randint(4, (count, 2), generator=generator)
    other = place + 2 * torch.stack([labels, 1 - labels], 1)
    bright = torch.zeros(count, 6, 6)
    for row, column in (place.unbind(1), other.unbind(1)):
        bright[torch.arange(count), row, column] = 2.0
    noise = 0.3 * torch.randn(count, 12, 12, generator=generator)
    return (noise + bright.repeat_interleave(2, 1).repeat_interleave(2, 2))[:, None], labels


def test_pictures_are_told_by_how_things_stand_to_each_other() -> None:
    """Two equal squares two patches apart, across or down, and no positions: no patch tells by itself."""
    patches = {"type": "patches", "size": 2, "channels": 1}
    encoder = {"type": "vision_encoder", "frontend": patches, "mixing": "separable", "hidden_dim": 24, "num_layers": 2}
    torch.manual_seed(1)
    model = build_model({"type": "classifier", "encoder": {**encoder, "position": "none", "block": BLOCK}})
    assert fitted(model, bars(1024, 1), bars(512, 2), epochs=4) >= 0.97
