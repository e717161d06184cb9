"""The multimodal model: any of its modalities, of any lengths, padded or not; where they meet, what it refuses."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spectral_core import ConfigError, UnsupportedInputError
from spectral_layers import MixerOutput
from spectral_models import MODELS, build_model, load_checkpoint, load_config, save_checkpoint
from spectral_models.assembly import components_of
from spectral_models.config import parts_of
from spectral_models.data import DataError, coincidence_batch
from spectral_models.variants.encoding import EncoderConfig
from spectral_models.variants.multimodal import Multimodal

FAST = {"mixer": {"type": "gated_convolution", "filter": {"type": "resonant", "modes": 2}}, "feedforward": "mlp"}
BLOCK = {"mixer": {"type": "spectral_gating", "head_dim": 8}, "feedforward": {"type": "moe", "experts": 2, "active": 2}}
SHARED = {"hidden_dim": 16, "num_layers": 2, "layers": [FAST, BLOCK]}
MEL = {"type": "mel", "sample_rate": 2000, "n_fft": 64, "hop_length": 20, "n_mels": 12, "bands": 3}
PATCHES = {"type": "patches", "size": 2, "channels": 1}
ENCODERS: dict[str, dict[str, Any]] = {
    "text": {"type": "encoder", "vocab_size": 13, **SHARED},
    "picture": {"type": "vision_encoder", "frontend": PATCHES, "image_size": [4, 6], **SHARED, "hidden_dim": 8},
    "sound": {"type": "audio_encoder", "frontend": MEL, **SHARED},
}
CONFIG = {
    "type": "multimodal",
    "num_labels": 3,
    "hidden_dim": 16,
    "encoders": ENCODERS,
    "fusion": {"type": "cross_modal", "head_dim": 8, "bands": 3},
}
SUBSETS = [names for size in (1, 2, 3) for names in itertools.combinations(ENCODERS, size)]


def made(**overrides: Any) -> Multimodal:
    """In eval mode and float64, with random parameters: what starts at zero hides what it would do."""
    torch.manual_seed(0)
    model = build_model(CONFIG, **overrides)
    assert isinstance(model, Multimodal)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.double().eval()


def row(text: int = 9, samples: int = 130, seed: int = 1) -> dict[str, Tensor]:
    """One row of all modalities, of those lengths."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "text": torch.randint(13, (1, text), generator=generator),
        "picture": torch.randn(1, 1, 4, 6, generator=generator).double(),
        "sound": 0.3 * torch.randn(1, samples, generator=generator).double(),
    }


def padded(rows: list[Tensor], side: str, fill: float) -> tuple[Tensor, Tensor]:
    """Rows (1, L) in one batch, and its mask."""
    width = max(row.shape[1] for row in rows) + 2
    batch = torch.full((len(rows), width), fill, dtype=rows[0].dtype)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for index, row in enumerate(rows):
        here = slice(width - row.shape[1], width) if side == "left" else slice(row.shape[1])
        batch[index, here], mask[index, here] = row[0], 1
    return batch, mask


def difference(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the largest of b."""
    assert a.shape == b.shape
    assert b.abs().max() > 1e-3, "a comparison with zeros says nothing"
    return float((a - b).abs().max() / b.abs().max())


def test_every_registered_encoder_is_tried() -> None:
    registered = {name for name, config in MODELS.configs().items() if issubclass(config, EncoderConfig)}
    assert {encoder["type"] for encoder in ENCODERS.values()} == registered


# What goes in


@pytest.mark.parametrize("names", SUBSETS, ids="+".join)
@pytest.mark.parametrize("pooling", ["mean", "max", "last"])
def test_padding_changes_no_logit_whichever_modalities_are_there(pooling: str, names: tuple[str, ...]) -> None:
    """Texts and sounds of unequal lengths, padded on opposite sides."""
    model = made(pooling=pooling)
    rows = [row(9, 130, seed=1), row(4, 201, seed=2), row(7, 41, seed=3)]
    text, text_mask = padded([row["text"] for row in rows], "left", 5)
    sound, sound_mask = padded([row["sound"] for row in rows], "right", 0.7)
    batch = {"text": text, "picture": torch.cat([row["picture"] for row in rows]), "sound": sound}
    masks = {"text": text_mask, "sound": sound_mask}
    with torch.no_grad():
        output = model(
            {name: batch[name] for name in names}, {name: mask for name, mask in masks.items() if name in names}
        )
        for index, row_ in enumerate(rows):
            alone = model({name: row_[name] for name in names})
            assert difference(output.logits[index], alone.logits[0]) < 1e-10
            assert difference(output.pooled[index], alone.pooled[0]) < 1e-10


def test_each_modality_counts_and_their_order_does_not() -> None:
    model, inputs = made(), row()
    with torch.no_grad():
        found = {names: model({name: inputs[name] for name in names}).logits for names in SUBSETS}
        for one, other in itertools.combinations(SUBSETS, 2):
            assert difference(found[one], found[other]) > 1e-3, (one, other)
        turned = model(dict(reversed(inputs.items()))).logits
    assert torch.equal(turned, found["text", "picture", "sound"])


def test_empty_batches_pass() -> None:
    """Data loaders hand them out."""
    inputs = {name: x[:0] for name, x in row().items()}
    assert made()(inputs).logits.shape == (0, 3)


def test_encoders_of_another_width_are_projected_and_no_others() -> None:
    assert {name: tuple(layer.weight.shape) for name, layer in made().projections.items()} == {"picture": (16, 8)}


def test_modalities_meet_before_they_are_pooled() -> None:
    """A text turned round, whose mean is the same without mixing or places, beside the same sound."""
    still = {"layers": [{"mixer": {"type": "fourier"}, "feedforward": "mlp"}], "position": "none"}
    model = made(**{f"encoders.text.{key}": value for key, value in still.items()})
    for block in model.encoders["text"].blocks:
        block.mixer.mix = lambda x, *_: MixerOutput(0 * x)
    inputs = row()
    other = {**inputs, "text": inputs["text"].flip(1)}
    with torch.no_grad():
        alone = [model({"text": batch["text"]}).logits for batch in (inputs, other)]
        beside = [model({"text": batch["text"], "sound": batch["sound"]}).logits for batch in (inputs, other)]
    assert difference(*alone) < 1e-10
    assert difference(*beside) > 1e-3


# Losses, metrics, training


def test_losses_and_metrics_are_named_by_path_and_in_the_loss() -> None:
    model = made(feedforward={"type": "moe", "experts": 2, "active": 2}).train()
    output = model(row())
    assert {name.rsplit(".", 1)[0] for name in output.losses} == {
        *(f"encoders.{name}.layers.1.feedforward" for name in ENCODERS),
        *(f"feedforward.{name}" for name in ENCODERS),
    }
    assert {f"fusion.{a}.importance.{b}" for a in ENCODERS for b in ENCODERS} <= output.metrics.keys()
    label = torch.tensor([2])
    plain = nn.functional.cross_entropy(output.logits.float(), label)
    torch.testing.assert_close(model.loss(row(), label).loss, plain + sum(output.losses.values()))


def test_every_parameter_learns_and_checkpointing_changes_no_gradient() -> None:
    model, found = made().train(), []
    for checkpointing in (False, True):
        model.gradient_checkpointing = checkpointing
        assert model.gradient_checkpointing == checkpointing
        inputs = {name: x.expand(2, *x.shape[1:]) for name, x in row().items()}
        loss = model.loss(inputs, torch.tensor([0, 2])).loss
        found.append(torch.autograd.grad(loss, list(model.parameters())))
    for (name, _), plain, recomputed in zip(model.named_parameters(), *found, strict=True):
        assert plain.abs().max() > 0, name
        torch.testing.assert_close(recomputed, plain, rtol=1e-9, atol=1e-12)


# From configs, to checkpoints, out of PyTorch


def test_its_parts_are_found_with_their_paths() -> None:
    config = load_config(CONFIG)
    paths = {path: part.type for path, part in parts_of(config)}
    assert paths["encoders.sound"] == "audio_encoder"
    assert paths["encoders.picture.layers.1.mixer"] == "spectral_gating"
    assert {("model", "encoder"), ("fusion", "cross_modal"), ("frontend", "mel")} <= {
        (part.kind, part.name) for part in components_of(config)
    }
    assert load_config(CONFIG, **{"encoders.sound.pooling": "max"}).encoders["sound"].pooling == "max"


def test_a_checkpoint_gives_the_same_model_in_whatever_order_its_config_is_written(tmp_path: Path) -> None:
    model, inputs = made(), row()
    save_checkpoint(model, tmp_path / "saved")
    loaded = load_checkpoint(tmp_path / "saved")
    assert loaded.config == model.config
    turned = build_model({**CONFIG, "encoders": dict(reversed(ENCODERS.items()))}).double().eval()
    turned.load_state_dict(model.state_dict())
    with torch.no_grad():
        wanted = model(inputs).logits
        assert torch.equal(loaded(inputs).logits, wanted)
        assert difference(turned(inputs).logits, wanted) < 1e-12


def test_trained_encoders_go_in_by_name() -> None:
    model = made()
    encoder = build_model(ENCODERS["sound"]).double().eval()
    model.encoders["sound"].load_state_dict(encoder.state_dict())


class Logits(nn.Module):
    def __init__(self, model: Multimodal) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        logits: Tensor = self.model(inputs).logits
        return logits


def test_an_exported_model_gives_the_same_logits_without_an_fft_call() -> None:
    """Of a text and a picture, one block each."""
    small = {"num_layers": 1, "layers": [FAST], "fft": "xla"}
    encoders = {name: {**ENCODERS[name], **small} for name in ("text", "picture")}
    model = Logits(made(fft="xla", encoders=encoders))
    inputs, other = ({name: row(seed=seed)[name] for name in encoders} for seed in (1, 5))
    program = torch.export.export(model, (inputs,))
    with torch.no_grad():
        assert difference(program.module()(other), model(other)) < 1e-10
    assert not {str(node.target) for node in program.graph.nodes if "fft" in str(node.target)}


# What it refuses


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"encoders": {"text": "encoder"}}, r"^encoders: two modalities or more are fused; a classifier has one"),
        ({"encoders": {**ENCODERS, "keys": "encoder"}}, r"^encoders: 'keys' cannot name a modality"),
        ({"encoders": {**ENCODERS, "a.b": "encoder"}}, r"^encoders: 'a\.b' cannot name a modality: .* has a dot"),
        (
            {"encoders.text": "language_model"},
            r"^encoders\.text: 'language_model' is not an encoder\. Encoders: .*vision",
        ),
        ({"encoders.sound.frontend": "tokens"}, r"^encoders\.sound\.frontend: 'tokens' takes text"),
        ({"encoders.text.block": {"mixr": "fourier"}, "encoders.text.layers": None}, r"^encoders\.text\.block\.mixr: "),
        (
            {"fusion": "source_product"},
            r"^fusion: 'source_product' is for decoders.*Fusions of modalities: cross_modal",
        ),
        ({"fusion.heads": 2}, r"^fusion\.heads: unknown key\. Did you mean 'head_dim'"),
        ({"num_labels": 1}, r"^num_labels: classification needs 2 labels or more"),
        ({"pooling": "cls"}, r"^pooling: Input should be 'mean', 'max' or 'last'"),
    ],
)
def test_configs_that_cannot_work_are_refused_with_their_path(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(CONFIG, **overrides)


def test_what_cannot_be_built_is_refused_with_the_whole_path() -> None:
    with pytest.raises(ConfigError, match=r"^fusion: head_dim 5 does not divide hidden_dim 16"):
        made(**{"fusion.head_dim": 5})
    with pytest.raises(ConfigError, match=r"^fusion: modalities are text, smell, and the model's are .*Leave them out"):
        made(**{"fusion.modalities": ["text", "smell"]})
    with pytest.raises(ConfigError, match=r"^encoders\.text\.position: the position 'learned'"):
        made(**{"encoders.text.position": "learned"})


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        ({}, {}, r"no modality is given\. Give one at least of text, picture, sound"),
        ({"sonud": row()["sound"]}, {}, r"inputs: no modality is called 'sonud'\. Did you mean 'sound'\? .*left out"),
        (row()["text"], {}, r"inputs come by modality, as a mapping .*; got Tensor\. Modalities: text, picture"),
        ({**row(), "text": torch.ones(2, 4).long()}, {}, r"batches differ in size: text \(2, 4\).*, picture \(1, 1, 4"),
        ({"text": torch.tensor([[13]])}, {}, r"^text: .*from 0 to 12"),
        ({"picture": torch.randn(1, 1, 6, 4)}, {}, r"^picture: this model takes images of 4 x 6 .* got \(1, 1, 6, 4"),
        ({"sound": row()["sound"]}, {"sample_rate": {"sound": 16_000}}, r"^sound: this model reads 2000 samples"),
        ({"sound": row()["sound"]}, {"sample_rate": 16_000}, r"sample_rate come by modality, .*got int"),
        ({"text": row()["text"]}, {"sample_rate": {"sound": 2000}}, r"sample_rate are given for 'sound', whose input"),
        (
            {"text": row()["text"]},
            {"sample_rate": {"text": 2000}},
            r"^text: .* 'encoder', .* no option 'sample_rate'; it",
        ),
        ({"text": None}, {}, r"inputs: 'text' is NoneType, not a tensor\. Leave a modality that is missing out"),
        (row(), {"attention_mask": {"picture": torch.ones(1, 24)}}, "^picture: a vision_encoder takes no attention"),
        (row(), {"attention_mask": torch.ones(1, 9)}, r"attention_mask come by modality, .*got Tensor"),
        (row(), {"attention_mask": {"text": torch.zeros(1, 9)}}, r"^text: rows \[0\] are empty"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_in_words(inputs: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedInputError, match=message):
        made()(inputs, **options)


def test_sound_of_its_rate_is_taken_and_labels_out_of_range_are_not() -> None:
    model = made()
    with pytest.raises(UnsupportedInputError, match=r"labels run from 0 to 2 \(num_labels 3\), .*; got 3 to 3"):
        model.loss(row(), torch.tensor([3]), sample_rate={"sound": 2000})


# The task made for it


def test_the_label_is_the_word_under_the_tone_and_no_text_tells_it() -> None:
    text, sound, labels = coincidence_batch(64, generator=torch.Generator().manual_seed(0))
    assert text.shape == (64, 16)
    assert sound.shape == (64, 3200)
    assert all(torch.equal(words.bincount(), torch.full((4,), 4)) for words in text)
    loudest = sound.unflatten(1, (16, 200)).square().mean(2).argmax(1)
    assert torch.equal(text[torch.arange(64), loudest], labels)
    assert loudest.unique().numel() > 10
    with pytest.raises(DataError, match=r"kinds \(2 or more\) that divide words"):
        coincidence_batch(1, generator=torch.Generator(), words=6)
