"""``spectral classify`` and ``spectral embed``: texts, pictures and sounds, as the model itself would take them."""

from __future__ import annotations

import io
import json
import wave

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from spectral_models import build_model, load_checkpoint, save_checkpoint

SMALL = {"hidden_dim": 32, "num_layers": 1, "layers": [{"mixer": "fourier", "feedforward": "mlp"}]}
PATCHES = {"type": "patches", "size": 4, "channels": 1}


def saved(directory, config):
    torch.manual_seed(0)
    model = build_model(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))  # so that labels differ
    return save_checkpoint(model, directory)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    config = {
        "type": "classifier",
        "num_labels": 3,
        "labels": ["bad", "good", "mixed"],
        "encoder": {"type": "encoder", **SMALL},
    }
    return saved(tmp_path_factory.mktemp("texts") / "model", config)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    encoder = {"type": "vision_encoder", "frontend": PATCHES, "image_size": [8, 12], **SMALL}
    return saved(tmp_path_factory.mktemp("pictures") / "model", {"type": "classifier", "encoder": encoder})


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    encoder = {"type": "audio_encoder", "mixing": "sequence", "frontend": {"type": "mel", "sample_rate": 8000}, **SMALL}
    return saved(tmp_path_factory.mktemp("sounds") / "model", encoder)


def probabilities(checkpoint, inputs):
    with torch.no_grad():
        return load_checkpoint(checkpoint)(inputs).logits.softmax(-1)[0]


def test_each_text_gets_the_label_it_would_get_alone(texts, spectral):
    given = ["a gripping, moving film", "no", "\u00e9t\u00e9 and a long story " * 5]
    ended = spectral("classify", texts, *given, "--json")
    assert ended.code == 0
    found = [json.loads(line) for line in ended.out.splitlines()]
    for text, line in zip(given, found, strict=True):
        expected = probabilities(texts, torch.tensor([list(text.encode())]))
        assert line["input"] == text
        names = ["bad", "good", "mixed"]
        assert [line["probabilities"][name] for name in names] == pytest.approx(expected.tolist(), abs=1e-5)
        assert line["label"] == names[int(expected.argmax())]
    assert len({line["label"] for line in found}) > 1


def test_a_pipe_gets_a_line_for_each_and_a_terminal_a_table(texts, spectral, monkeypatch):
    lines = spectral("classify", texts, "yes", "a\udcffb").out.splitlines()
    label, probability, text = lines[0].split("\t")
    assert (text, lines[1].split("\t")[2]) == ("yes", "a\ufffdb")
    import spectral_models.cli.classify as module

    console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=60)
    monkeypatch.setattr(module, "out", console)
    assert spectral("classify", texts, "yes", "no [bold]").code == 0
    shown = console.file.getvalue().splitlines()
    assert shown[1].split()[:3] == ["yes", label, probability]
    assert "no [bold]" in shown[2], "text is no markup"


def test_texts_come_from_a_file_or_the_standard_input(texts, spectral, tmp_path, monkeypatch):
    given = spectral("classify", texts, "one text", "another")
    (tmp_path / "texts.txt").write_text("one text\nanother\n", encoding="utf-8")
    monkeypatch.setattr("sys.stdin", io.StringIO("one text\nanother\n"))
    assert (
        spectral("classify", texts, "--file", tmp_path / "texts.txt")
        == given
        == spectral("classify", texts, "--file", "-")
    )


def test_labels_without_names_are_numbers(pictures, spectral, tmp_path):
    pixels = np.arange(96, dtype=np.uint8).reshape(8, 12)
    Image.fromarray(pixels).save(tmp_path / "grey.png")
    Image.fromarray(np.stack([pixels] * 3, -1)).save(tmp_path / "colour.png")
    expected = probabilities(pictures, (torch.from_numpy(pixels).float() / 127.5 - 1)[None, None])
    for name in ("grey.png", "colour.png"):
        line = json.loads(spectral("classify", pictures, tmp_path / name, "--json").out)
        assert line["input"].endswith(name)
        assert [line["probabilities"][label] for label in "01"] == pytest.approx(expected.tolist(), abs=1e-5)


def test_a_picture_of_another_size_or_kind(pictures, spectral, tmp_path):
    Image.new("L", (12, 12)).save(tmp_path / "square.png")
    spectral("classify", pictures, tmp_path / "square.png").refused(
        r"square\.png is 12 x 12 pixels .* takes images of 8 x 12; .* -resize 12x8!"
    )
    (tmp_path / "text.png").write_text("no picture")
    spectral("classify", pictures, tmp_path / "text.png").refused(r"text\.png is no image that Pillow reads")
    spectral("classify", pictures, tmp_path / "none.png").refused(r"cannot read the image .*none\.png: No such file")


def record(path, samples, *, width=2, rate=8000):
    """A WAV file of samples (T, channels) from -1 to 1."""
    whole = np.round(np.asarray(samples) * (2 ** (8 * width - 1) - 1)).astype("<i8")
    octets = (whole + 128 * (width == 1)).reshape(-1, 1).view(np.uint8).reshape(whole.size, 8)[:, :width]
    with wave.open(str(path), "wb") as file:
        file.setparams((whole.shape[1], width, rate, 0, "NONE", ""))
        file.writeframes(octets.tobytes())
    return path


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_a_sound_is_the_mean_of_its_channels(sounds, spectral, tmp_path, width):
    left, right = 0.2 * np.random.default_rng(0).standard_normal((2, 2000)).clip(-4, 4)  # loud in every band
    path = record(tmp_path / "sound.wav", np.stack([left, right], 1), width=width)
    (line,) = spectral("embed", sounds, path).out.splitlines()
    with torch.no_grad():
        expected = load_checkpoint(sounds)(torch.from_numpy((left + right) / 2).float()[None]).pooled[0]
    found = torch.tensor(json.loads(line)["embedding"])
    tolerance = 0.05 if width == 1 else 1e-3
    assert (found - expected).abs().max() < tolerance * expected.abs().max()


def test_a_sound_of_another_rate_or_kind(sounds, spectral, tmp_path):
    fast = record(tmp_path / "fast.wav", np.zeros((100, 1)), rate=16000)
    spectral("embed", sounds, fast).refused(r"has 16000 samples a second, and this model needs 8000.*Convert it: sox")
    spectral("embed", sounds, record(tmp_path / "none.wav", np.zeros((0, 1)))).refused("has no samples")
    (tmp_path / "text.wav").write_text("no sound at all")
    spectral("embed", sounds, tmp_path / "text.wav").refused(r"text\.wav is no WAV file of plain samples")
    spectral("embed", sounds, tmp_path / "missing.wav").refused(r"cannot read the recording .*missing\.wav: No such")


def test_embeddings_are_the_means_over_each_texts_own_tokens(texts, spectral, tmp_path):
    given = ["a cat sat", "the dog lay down for the whole of the long afternoon", "x"]
    ended = spectral("embed", texts, *given, "--out", tmp_path / "made.npy")
    assert ended.out == f"written {tmp_path}/made.npy, 3 embeddings of 32 numbers\n"
    encoder = load_checkpoint(texts).encoder
    with torch.no_grad():
        expected = torch.cat([encoder(torch.tensor([list(text.encode())])).hidden.mean(1) for text in given])
    made = np.load(tmp_path / "made.npy")
    assert made.dtype == np.float32
    assert made == pytest.approx(expected.numpy(), abs=1e-5)
    assert spectral("embed", texts, *given, "--out", tmp_path / "unit.npy", "--normalize").code == 0
    lengths = np.linalg.norm(expected.numpy(), axis=1, keepdims=True)
    assert np.load(tmp_path / "unit.npy") == pytest.approx(expected.numpy() / lengths, abs=1e-5)
    lines = [json.loads(line) for line in spectral("embed", texts, *given).out.splitlines()]
    assert [line["input"] for line in lines] == given
    assert np.array([line["embedding"] for line in lines]) == pytest.approx(made, abs=1e-5)


def test_a_terminal_is_shown_cosines(texts, spectral, monkeypatch):
    import spectral_models.cli.embed as module

    console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=100)
    monkeypatch.setattr(module, "out", console)
    assert spectral("embed", texts, "one", "one", "another").code == 0
    rows = console.file.getvalue().splitlines()
    assert rows[2].split()[-1] == "+1.00", "a text is like itself"
    assert rows[3].split()[-1] == rows[3].split()[-2] != "+1.00"


@pytest.mark.parametrize("command", ["classify", "embed"])
def test_nothing_to_read_is_one_clear_error(texts, spectral, tmp_path, command):
    (tmp_path / "gap.txt").write_text("one\n\ntwo\n")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    spectral(command, texts).refused(r"give inputs, or --file FILE")
    spectral(command, texts, "a", "--file", tmp_path / "gap.txt").refused(r"not both")
    spectral(command, texts, "a", " ").refused(r"text 2 is empty, and there is nothing in it to read")
    spectral(command, texts, "--file", tmp_path / "gap.txt").refused(r"line 2 of .*gap\.txt is empty")
    spectral(command, texts, "--file", tmp_path / "empty.txt").refused(r"empty\.txt is empty")
    spectral(command, texts, "--file", tmp_path / "latin.txt").refused(r"latin\.txt: not UTF-8 text: .* at offset 3")
    spectral(command, texts, "--file", tmp_path / "none.txt").refused(r"none\.txt: cannot be read: No such file")
    spectral(command, tmp_path / "none", "a").refused(r"there is no checkpoint directory at .*none")


def test_a_checkpoint_of_another_variant(spectral, sounds, tmp_path):
    language = save_checkpoint(build_model({"hidden_dim": 32, "num_layers": 1}), tmp_path / "language")
    spectral("classify", language, "a").refused(r"holds a model of type language_model.* classify takes a classifier")
    spectral("classify", sounds, "a").refused(r"holds a model of type audio_encoder.*spectral embed")
    spectral("embed", language, "a").refused(r"holds a model of type language_model.* embed takes an encoder")
    spectral("embed", sounds, "a", "--out", tmp_path / "made.txt").refused(r"call it .*made\.npy")


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_texts_are_cut_where_training_cut_them_or_where_the_model_ends_and_it_is_said(spectral, tmp_path, pooling):
    limited = {"type": "gated_convolution", "filter": "spectrum"}
    encoder = {"type": "encoder", "pooling": pooling, **SMALL, "layers": [{"mixer": limited, "feedforward": "mlp"}]}
    given = ["a text of more than eight bytes", "short", "another that is too long"]
    for name, settings, length in (
        ("told", {"max_length": 8, "max_seq_len": 12}, 8),
        ("limited", {"max_length": 20, "max_seq_len": 12}, 12 - (pooling == "cls")),
    ):
        config = {"type": "classifier", "encoder": {**encoder, **settings}}
        checkpoint = saved(tmp_path / name, config)
        ended = spectral("classify", checkpoint, *given, "--json")
        why = {"told": "the model was trained on no more of a text", "limited": "the model's parts take no more"}[name]
        assert ended.err == f"2 of 3 texts were cut after {length} tokens: {why}\n"
        for text, line in zip(given, ended.out.splitlines(), strict=True):
            found = json.loads(line)
            expected = probabilities(checkpoint, torch.tensor([list(text.encode()[:length])]))
            assert found["input"] == text
            assert [found["probabilities"][label] for label in "01"] == pytest.approx(expected.tolist(), abs=1e-5)
        assert spectral("embed", checkpoint, *given).err == ended.err
        assert spectral("embed", checkpoint, "short").err == ""
