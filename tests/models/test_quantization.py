"""Int8 weights: near the model's own, a quarter of their size, in checkpoints that load, stream and generate."""

from __future__ import annotations

import json
import re
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from spectral_core import ConfigError
from spectral_models import CheckpointError, build_model, load_checkpoint, save_checkpoint
from spectral_models.checkpoint import load_tokenizer, write_marker
from spectral_models.data import ByteTokenizer
from spectral_models.data.subwords import learn_bpe
from spectral_models.quantization import int8_layers, quantize

pytest.importorskip("torchao")

MODEL = {"hidden_dim": 64, "num_layers": 3, "layers": ["hybrid", {"mixer": "holographic", "feedforward": "moe"}]}
TEXT = "def read(path):\n    return path.read_text()\n\n" * 40


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A model's checkpoint, and the same with int8 weights."""
    folder = tmp_path_factory.mktemp("quantized")
    torch.manual_seed(0)
    model = build_model(MODEL)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape))
    before = save_checkpoint(model, folder / "before")
    quantize(model)
    return before, save_checkpoint(model, folder / "after")


@pytest.fixture
def ids():
    return torch.tensor([list(TEXT.encode()[:100])])


@torch.no_grad()
def test_logits_are_near_and_the_error_of_a_weight_is_half_a_step(checkpoints, ids):
    # With all experts at work: a rounded feature may choose another, and a random model's differ as random ones do.
    before, after = (load_checkpoint(path, **{"layers.2.feedforward.active": 16}) for path in checkpoints)
    expected = before(ids).logits
    assert 0 < (after(ids).logits - expected).norm() < 0.05 * expected.norm()
    for layer in int8_layers(after):
        weight, rounded = before.get_submodule(layer).weight, after.get_submodule(layer).weight
        assert rounded.qdata.dtype == torch.int8
        assert ((rounded.dequantize() - weight).abs() <= 0.501 * rounded.scale).all()
        assert (rounded.scale <= weight.abs().amax(1, keepdim=True) / 126).all()


def test_projections_of_blocks_are_quantised_idle_experts_too_and_nothing_else(checkpoints):
    before, after = map(load_checkpoint, checkpoints)
    layers = int8_layers(after)
    assert {"blocks.0.mixer.in_proj", "blocks.1.mixer.value_proj", "blocks.0.feedforward.up"} <= set(layers)
    assert {f"blocks.2.feedforward.experts.{index}.down" for index in range(16)} <= set(layers)
    others = {
        name: tensor for name, tensor in before.state_dict().items() if name.removesuffix(".weight") not in layers
    }
    assert {
        "frontend.embedding.weight",
        "blocks.1.mixer.phase_proj.weight",
        "blocks.2.feedforward.router.weight",
    } <= set(others)
    found = after.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in others.items())


def test_a_filters_network_keeps_its_precision():
    mixer = {"type": "gated_convolution", "filter": "implicit"}
    layers = quantize(build_model({"hidden_dim": 32, "num_layers": 1, "block": {"mixer": mixer}}))
    assert layers == [
        f"blocks.0.{name}" for name in ("mixer.in_proj", "mixer.out_proj", "feedforward.up", "feedforward.down")
    ]


def test_weights_take_a_quarter_on_disk(checkpoints):
    before, after = (load_file(path / "model.safetensors") for path in checkpoints)
    layers = int8_layers(load_checkpoint(checkpoints[1]))
    was = sum(before[f"{layer}.weight"].nbytes for layer in layers)
    now = sum(after[f"{layer}.weight.{part}"].nbytes for layer in layers for part in ("qdata", "scale"))
    assert 3.5 < was / now < 4
    assert {tensor.dtype for name, tensor in after.items() if name.endswith(".qdata")} == {torch.int8}
    saved = sum(path.stat().st_size for path in [checkpoints[0] / "model.safetensors"])
    assert saved - (checkpoints[1] / "model.safetensors").stat().st_size > 0.9 * (was - now)


@torch.no_grad()
def test_a_quantised_model_streams_generates_and_is_saved_again(checkpoints, ids, tmp_path):
    model = load_checkpoint(checkpoints[1])
    whole = model(ids).logits
    state, pieces = None, []
    for chunk in ids.split([50, 1, 1, 48], 1):
        output = model(chunk, state=state, return_state=True)
        state = output.state
        pieces.append(output.logits)
    assert (torch.cat(pieces, 1) - whole).abs().max() < 1e-4 * whole.abs().max()
    generated = model.generate(ids, max_new_tokens=5)
    assert torch.equal(generated[:, 100], whole[:, -1].argmax(-1))
    again = load_checkpoint(save_checkpoint(model, tmp_path / "again"), fft="torch")
    assert int8_layers(again) == int8_layers(model)
    assert torch.equal(again.generate(ids, max_new_tokens=5), generated)


def test_the_command_reports_size_and_change(checkpoints, spectral, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    ended = spectral("quantize", checkpoints[0], tmp_path / "made", "--data", tmp_path / "text.txt")
    assert ended.code == 0, ended
    size = re.search(r"size +([\d,]+) -> ([\d,]+) bytes on disk, ([\d.]+) times smaller", ended.out)
    before, after = (int(part.replace(",", "")) for part in size.groups()[:2])
    assert before == (checkpoints[0] / "model.safetensors").stat().st_size
    assert after == (tmp_path / "made" / "model.safetensors").stat().st_size
    assert float(size[3]) == pytest.approx(before / after, abs=0.01)
    bits = re.search(r"change +([\d.]+) -> ([\d.]+) bits per byte of [\d,]+ bytes of .*text\.txt", ended.out)
    assert 0 < abs(float(bits[1]) - float(bits[2])) < 0.1
    assert spectral("generate", tmp_path / "made", "--prompt", "def", "--max-new-tokens", 3).code == 0
    spectral("quantize", tmp_path / "made", tmp_path / "twice", "--data", tmp_path / "text.txt").refused(
        "has int8 weights already"
    )


@pytest.mark.parametrize("kind", ["classifier", "vision_encoder"])
def test_of_other_models_the_change_is_a_share_or_a_cosine(spectral, tmp_path, kind):
    small = {"hidden_dim": 32, "num_layers": 1, "layers": [{"mixer": "fourier"}]}
    vision = {"type": kind, "image_size": [8, 8], "frontend": {"type": "patches", "size": 4}, **small}
    torch.manual_seed(0)
    model = build_model({"type": kind, "encoder": {"type": "encoder", **small}} if kind == "classifier" else vision)
    (tmp_path / "text.txt").write_text(TEXT)
    before = save_checkpoint(model, tmp_path / "before")
    ended = spectral("quantize", before, tmp_path / "made", "--data", tmp_path / "text.txt")
    measure = {
        "classifier": r"same label for \d+ pieces of .*text\.txt",
        "vision_encoder": r"cosine .* of 64 random inputs",
    }
    found = re.search(rf"change +([\d.]+) {measure[kind]}", ended.out)
    assert 0.9 < float(found[1]) <= 1
    assert int8_layers(load_checkpoint(tmp_path / "made")) == [
        "blocks.0.feedforward.up",
        "blocks.0.feedforward.down",
    ] or (kind == "classifier")


@pytest.mark.parametrize("kind", ["learned", "bytes", "none"])
def test_the_tokenizer_goes_along(spectral, tmp_path, kind):
    tokenizer = {"learned": learn_bpe([TEXT], 300), "bytes": ByteTokenizer(), "none": None}[kind]
    model = build_model({"hidden_dim": 32, "num_layers": 1, "vocab_size": 300})
    before = save_checkpoint(model, tmp_path / "before", tokenizer=tokenizer)
    (tmp_path / "text.txt").write_text(TEXT)
    assert spectral("quantize", before, tmp_path / "made", "--data", tmp_path / "text.txt").code == 0
    assert (tmp_path / "made" / "tokenizer.json").exists() is (tokenizer is not None)
    found = load_tokenizer(tmp_path / "made")
    assert found.encode("def read") == (tokenizer or ByteTokenizer()).encode("def read")
    assert isinstance(found, ByteTokenizer) is (kind != "learned")


def test_without_torchao_the_extra_is_named(checkpoints, spectral, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao", None)
    install = r"int8 weights need a library that is not installed: torchao.*pip install 'spectral-networks\[quantize\]'"
    spectral("quantize", checkpoints[0], tmp_path / "made").refused(install)
    spectral("generate", checkpoints[1]).refused(install)
    assert load_checkpoint(checkpoints[0]), "others need no torchao"


def rewritten(checkpoint, directory, *, record=None, weights=None):
    """A copy of a checkpoint with another record or other weights, and a marker that says it is whole."""
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(record or json.loads((checkpoint / "config.json").read_text())))
    save_file(weights or load_file(checkpoint / "model.safetensors"), directory / "model.safetensors")
    write_marker(directory, "complete.json", ["config.json", "model.safetensors"])
    return directory


def test_int8_layers_with_earlier_names_load(checkpoints, tmp_path, ids):
    def earlier(name):
        return name.replace("decay_proj", "forget_proj").replace("beta_proj", "correct_proj")

    record = json.loads(earlier((checkpoints[1] / "config.json").read_text()))
    assert any("forget_proj" in layer for layer in record["quantization"]["layers"])
    weights = {earlier(name): tensor for name, tensor in load_file(checkpoints[1] / "model.safetensors").items()}
    path = rewritten(checkpoints[1], tmp_path / "earlier", record=record, weights=weights)
    assert torch.equal(load_checkpoint(path)(ids).logits, load_checkpoint(checkpoints[1])(ids).logits)


def test_a_quantisation_that_is_unknown_or_damaged_is_refused(checkpoints, tmp_path):
    record = json.loads((checkpoints[1] / "config.json").read_text())
    other = {**record, "quantization": {**record["quantization"], "scheme": "int3"}}
    with pytest.raises(CheckpointError, match=r"is quantised as 'int3'; this release .* reads 'int8_weight_only'"):
        load_checkpoint(rewritten(checkpoints[1], tmp_path / "other", record=other))
    with pytest.raises(CheckpointError, match="is damaged"):
        load_checkpoint(rewritten(checkpoints[1], tmp_path / "bare", record={**record, "quantization": "int8"}))
    weights = load_file(checkpoints[1] / "model.safetensors")
    del weights["blocks.0.mixer.in_proj.weight.scale"]
    with pytest.raises(CheckpointError, match=r"does not fit its config: .*in_proj"):
        load_checkpoint(rewritten(checkpoints[1], tmp_path / "less", weights=weights))


def test_a_model_without_projections_has_nothing_to_quantise():
    model = build_model({"type": "encoder", "hidden_dim": 32, "num_layers": 1, "layers": [{"mixer": "fourier"}]})
    quantize(model)
    with pytest.raises(ConfigError, match="has int8 weights already"):
        quantize(model)
