"""``spectral export``: programs that compute what the model does, and no others."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from spectral_core import ConfigError
from spectral_models import build_model, load_checkpoint, save_checkpoint
from spectral_models.export import ExportError, export_model, exporting
from spectral_models.export.programs import Program
from spectral_models.model import SpectralModel

FOURIER = {"hidden_dim": 16, "num_layers": 1, "layers": [{"mixer": "fourier", "feedforward": "mlp"}]}
MEL = {"type": "mel", "sample_rate": 1000, "n_fft": 64, "hop_length": 32, "n_mels": 8}
LANGUAGE = {
    "hidden_dim": 16,
    "num_layers": 1,
    "block": {"mixer": {"type": "holographic", "head_dim": 8, "phases": 4}, "feedforward": "mlp"},
}
TWO_SIDED = {
    "hidden_dim": 16,
    "num_layers": 1,
    "block": {"mixer": {"type": "gated_convolution", "filter": {"type": "multiresolution"}}, "feedforward": "mlp"},
}
EXPERTS = {"type": "moe", "experts": 3, "expansion": 1.0}
LIMITED = {"type": "gated_convolution", "filter": "spectrum"}
PAIRS = {
    "type": "seq2seq",
    "hidden_dim": 16,
    "num_layers": 1,
    "max_seq_len": 5,
    "block": {"mixer": LIMITED, "feedforward": "mlp"},
    "position": "learned",
    "fusion": {"type": "source_product", "head_dim": 8, "phases": 4},
    "encoder": {
        "type": "encoder",
        "hidden_dim": 16,
        "num_layers": 1,
        "max_seq_len": 9,
        "block": {"mixer": LIMITED, "feedforward": EXPERTS},
    },
}
PATCHES = {"type": "vision_encoder", "frontend": {"type": "patches", "size": 4}}
MODALITIES = {
    "type": "multimodal",
    "hidden_dim": 16,
    "fusion": {"type": "cross_modal", "head_dim": 8, "bands": 2},
    "feedforward": EXPERTS,
    "encoders": {"picture": {**PATCHES, **FOURIER}, "caption": {"type": "encoder", **FOURIER}},
}


def saved(directory, config):
    torch.manual_seed(0)
    return save_checkpoint(build_model(config), directory)


@pytest.fixture(scope="module")
def language(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("language") / "model", LANGUAGE)


def test_an_onnx_classifier_in_any_batch(spectral, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    config = {"type": "classifier", "num_labels": 3, "encoder": {"type": "encoder", **FOURIER}}
    checkpoint = saved(tmp_path / "model", config)
    ended = spectral("export", checkpoint, tmp_path / "made.onnx", "--length", 12, "--full-rows")
    assert ended.code == 0, ended
    said = [line.split(maxsplit=1) for line in ended.out.splitlines()]
    assert said[:2] == [["input", "input_ids       (batch, 12)"], ["output", "logits          (batch, 3)"]]
    assert float(said[2][1].split()[0]) <= 1e-5
    assert f"written {tmp_path}/made.onnx (" in ended.out
    assert ended.err == ""
    assert {path.name for path in tmp_path.iterdir()} == {"model", "made.onnx"}
    ids = torch.randint(256, (5, 12), generator=torch.Generator().manual_seed(1))
    session = onnxruntime.InferenceSession(tmp_path / "made.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"input_ids": ids.numpy()})
    with torch.no_grad():
        expected = load_checkpoint(checkpoint)(ids).logits
    assert np.abs(found - expected.numpy()).max() < 1e-5 * expected.abs().max()


def test_an_encoder_takes_padded_texts(tmp_path):
    torch.manual_seed(0)
    model = build_model({"type": "encoder", "masked_lm": True, **TWO_SIDED}).eval()
    made = export_model(model, tmp_path / "made.pt2", format="torch", length=12)
    assert made.inputs == {"input_ids": (12,), "attention_mask": (12,)}
    assert made.outputs == {"pooled": (16,), "hidden": (12, 16), "logits": (12, 256)}
    texts = [b"short", b"a text of 12", b"x", b"padded left"]
    ids, mask = torch.zeros(2, 4, 12, dtype=torch.long)
    for row, text in enumerate(texts):
        place = slice(12 - len(text), 12) if row == 3 else slice(0, len(text))
        ids[row, place], mask[row, place] = torch.tensor(list(text)), 1
    with torch.no_grad():
        pooled, hidden, logits = torch.export.load(made.path).module()(ids, mask)
        for row, text in enumerate(texts):
            alone = model(torch.tensor([list(text)]))
            assert torch.allclose(pooled[row], alone.pooled[0], atol=1e-4)
            assert torch.allclose(hidden[row, mask[row] != 0], alone.hidden[0], atol=1e-4)
            assert torch.allclose(logits[row, mask[row] != 0], alone.logits[0], atol=1e-4)
    assert (hidden[mask == 0] == 0).all()


def test_a_torch_program_of_a_language_model_reads_shorter_texts_too(language, spectral, tmp_path):
    ended = spectral("export", language, tmp_path / "deep" / "made.pt2", "--length", 20)
    assert ended.code == 0, ended
    assert "attention_mask" not in ended.out
    program = torch.export.load(tmp_path / "deep" / "made.pt2").module()
    ids = torch.randint(1, 256, (5, 20), generator=torch.Generator().manual_seed(1))
    ids[:, 15:] = 0
    with torch.no_grad():
        (found,) = program(ids)
        expected = load_checkpoint(language)(ids[:, :15]).logits
    assert (found[:, :15] - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize(
    ("config", "options", "inputs"),
    [
        ({"type": "vision_encoder", "frontend": {"type": "patches", "size": 4}}, {"size": (8, 12)}, (3, 8, 12)),
        ({"type": "audio_encoder", "mixing": "sequence", "frontend": MEL}, {"length": 200, "masked": False}, (200,)),
    ],
    ids=["pictures", "sound"],
)
def test_encoders_of_pictures_and_sound(tmp_path, config, options, inputs):
    torch.manual_seed(0)
    model = build_model({**config, **FOURIER}).eval()
    made = export_model(model, tmp_path / "made.pt2", format="torch", **options)
    assert list(made.inputs.values()) == [inputs]
    assert list(made.outputs) == ["pooled", "hidden"]
    assert made.error < 1e-5
    given = torch.randn(4, *inputs, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        pooled, hidden = torch.export.load(made.path).module()(given)
        expected = model(given)
    assert torch.allclose(pooled, expected.pooled, atol=1e-4)
    assert torch.allclose(hidden, expected.hidden, atol=1e-4)


def shapes_said(ended):
    assert ended.code == 0, ended
    lines = [line.split(maxsplit=2) for line in ended.out.splitlines() if line.startswith(("input", "output"))]
    return [(name, shape) for _, name, shape in lines]


def test_a_source_and_a_target_in_one_onnx_program(spectral, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    checkpoint = saved(tmp_path / "model", PAIRS)
    ended = spectral("export", checkpoint, tmp_path / "made.onnx", "--length", "input_ids=9")
    sources = [("input_ids", "(batch, 9)"), ("attention_mask", "(batch, 9)")]
    target = ("decoder_input_ids", "(batch, 5)")  # what the decoder's parts are limited to
    assert shapes_said(ended) == [*sources, target, ("logits", "(batch, 5, 256)")]
    ids, mask = torch.zeros(2, 4, 9, dtype=torch.long)
    texts = [b"short", b"a text: 9", b"x", b"left"]
    for row, text in enumerate(texts):
        place = slice(9 - len(text), 9) if row == 3 else slice(0, len(text))
        ids[row, place], mask[row, place] = torch.tensor(list(text)), 1
    targets = torch.randint(256, (4, 5), generator=torch.Generator().manual_seed(1))
    session = onnxruntime.InferenceSession(tmp_path / "made.onnx", providers=["CPUExecutionProvider"])
    given = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": targets}
    (logits,) = session.run(None, {name: tensor.numpy() for name, tensor in given.items()})
    model = load_checkpoint(checkpoint)
    with torch.no_grad():
        for row, text in enumerate(texts):
            alone = model(torch.tensor([list(text)]), targets[row : row + 1]).logits[0]
            torch.testing.assert_close(torch.from_numpy(logits[row]), alone, rtol=1e-4, atol=1e-5)


def test_modalities_by_name_in_one_program(spectral, tmp_path):
    checkpoint = saved(tmp_path / "model", MODALITIES)
    ended = spectral("export", checkpoint, tmp_path / "made.pt2", "--length", "caption=6", "--size", 8, 12)
    assert shapes_said(ended) == [("picture", "(batch, 3, 8, 12)"), ("caption", "(batch, 6)"), ("logits", "(batch, 2)")]
    generator = torch.Generator().manual_seed(1)
    picture = torch.randn(5, 3, 8, 12, generator=generator)
    caption = torch.randint(256, (5, 6), generator=generator)
    with torch.no_grad():
        (found,) = torch.export.load(tmp_path / "made.pt2").module()(picture, caption)
        expected = load_checkpoint(checkpoint)({"picture": picture, "caption": caption}).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_program_that_computes_something_else_is_not_kept(language, spectral, tmp_path, monkeypatch):
    load = torch.export.load

    class Off:
        def __init__(self, path):
            self.program = load(path)

        def module(self):
            module = self.program.module()
            return lambda *inputs: tuple(output + 1e-3 * output.abs().max() for output in module(*inputs))

    monkeypatch.setattr(torch.export, "load", Off)
    (tmp_path / "made.pt2").write_text("what was there before")
    ended = spectral("export", language, tmp_path / "made.pt2", "--length", 8)
    ended.refused(r"the program's logits differ from the model's by 1\.0e-03 of the largest, more than 0\.0001")
    assert [path.name for path in tmp_path.iterdir()] == ["made.pt2"]
    assert (tmp_path / "made.pt2").read_text() == "what was there before"


@pytest.mark.parametrize("wrong", [torch.tensor([[1.0, 2.1]]), torch.tensor([[1.0, torch.nan]]), torch.ones(1, 3)])
def test_wrong_numbers_no_numbers_and_other_shapes_are_found(wrong):
    right = torch.tensor([[1.0, 2.0]])
    assert exporting._worst([right + 1e-5], [right], ["logits"]) == pytest.approx(5e-6, rel=0.1)
    with pytest.raises(ExportError, match="logits differ"):
        exporting._worst([wrong], [right], ["logits"])


def test_parts_that_cannot_be_traced_are_named(tmp_path):
    model = build_model({"type": "classifier", "encoder": {"type": "encoder", **FOURIER}})
    with pytest.raises(ExportError, match=r"classifier cannot be traced.*fourier.*\(--full-rows\)"):
        export_model(model, tmp_path / "made.pt2", format="torch", length=8)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_one_message(language, spectral, tmp_path, monkeypatch):
    made = tmp_path / "made.pt2"
    spectral("export", language, tmp_path / "made.bin").refused(r"does not say what to write\. Call it \.pt2 or \.onnx")
    spectral("export", language, made, "--size", 8, 8).refused(r"a language_model takes no images")
    spectral("export", tmp_path / "none", made).refused("there is no checkpoint directory")
    (tmp_path / "folder.pt2").mkdir()
    spectral("export", language, tmp_path / "folder.pt2", "--length", 8).refused(r"cannot write .*folder\.pt2")
    pictures = saved(tmp_path / "vision", {"type": "classifier", "encoder": {**PATCHES, **FOURIER}})
    spectral("export", pictures, made).refused(r"a program has one. Give a size, as in 224 224")
    spectral("export", pictures, made, "--size", -4, 8).refused(
        r"at least one row and one column; got a size of -4 x 8"
    )
    spectral("export", pictures, made, "--size", 9, 8).refused(r"multiples of the patch size 4; got 9 x 8")
    spectral("export", pictures, made, "--length", 8).refused(r"a classifier of images has no input with a length")
    fixed = {"type": "classifier", "encoder": {**PATCHES, **FOURIER, "image_size": [8, 8]}}
    spectral("export", saved(tmp_path / "fixed", fixed), made, "--size", 4, 8).refused(
        r"this model takes images of 8 x 8, not of 4 x 8\. Give no size"
    )
    pairs = saved(tmp_path / "pairs", PAIRS)
    spectral("export", pairs, made, "--length", "decoder_ids=4").refused(
        r"no input 'decoder_ids' with a length\. Did you mean 'decoder_input_ids'\?"
    )
    for given in (["x"], ["0"], ["input_ids=-1"], ["4", "5"], ["4", "input_ids=5"]):
        options = [text for one in given for text in ("--length", one)]
        spectral("export", pairs, made, *options).refused(rf"length.*got {', '.join(given)}\.")
    limited = saved(tmp_path / "limited", {**LANGUAGE, "position": "learned", "max_seq_len": 8})
    spectral("export", limited, made, "--length", 9).refused(r"limited to 8 tokens")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    spectral("export", language, tmp_path / "made.onnx").refused(
        r"ONNX needs a library that is not installed: onnxruntime\. Run: pip install 'spectral-networks\[export\]'"
    )
    assert not made.exists()


def test_int8_weights_have_no_program(tmp_path):
    pytest.importorskip("torchao")
    from spectral_models.quantization import quantize

    model = build_model(LANGUAGE)
    quantize(model)
    with pytest.raises(ConfigError, match="export the one it was made from"):
        export_model(model, tmp_path / "made.pt2", format="torch")


def test_models_without_a_program_are_named():
    with pytest.raises(ConfigError, match=r"a seq2seq cannot be exported: it declares no input_specs\(\)"):
        Program(SpectralModel(build_model(PAIRS).config))
    encoders = {"logits": MODALITIES["encoders"]["picture"], "caption": MODALITIES["encoders"]["caption"]}
    with pytest.raises(ConfigError, match="an input called 'logits' and cannot be exported"):
        Program(build_model({**MODALITIES, "encoders": encoders}))
