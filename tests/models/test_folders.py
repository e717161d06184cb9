"""Classifiers of pictures and sounds, trained from folders: read in one way by every command, refused with the file."""

from __future__ import annotations

import json
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spectral_core import ConfigError
from spectral_models import build_model, load_checkpoint, save_checkpoint
from spectral_models.data import DataError
from spectral_models.data.batches import FileExamples, padded
from spectral_models.data.folders import LabelledFilesConfig, read_folder
from spectral_models.data.labels import class_numbers
from spectral_models.data.readers import AudioReader, File, ImageReader
from spectral_models.data.source import load
from spectral_models.training import load_run

BLOCK = {"hidden_dim": 16, "num_layers": 2, "layers": [{"mixer": "fourier", "feedforward": "mlp"}]}
PATCHES = {"type": "patches", "size": 4, "channels": 1}
PICTURES = {"type": "vision_encoder", "frontend": PATCHES, "image_mean": [0.25], "image_std": [0.125], **BLOCK}
MEL = {"type": "mel", "sample_rate": 4000, "n_fft": 64, "hop_length": 32, "n_mels": 8}
SOUNDS = {"type": "audio_encoder", "mixing": "sequence", "frontend": MEL, "position": "none", **BLOCK}
TRAINING = {"steps": 12, "batch_size": 16, "learning_rate": 1e-2, "eval_every": 12, "save_every": 6, "log_every": 6}


def picture(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def sound(path: Path, samples: np.ndarray, rate: int = 4000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(np.round(samples * 32767).astype("<i2").tobytes())
    return path


@pytest.fixture(scope="module")
def stripes(tmp_path_factory) -> Path:
    """Noise below stripes that lie or stand, 12 pixels wide and 8 high, some of them in folders of their own."""
    root, random = tmp_path_factory.mktemp("stripes"), np.random.default_rng(0)
    for number in range(40):
        stripe = 100 * (np.indices((8, 12))[number % 2] // 2 % 2)
        place = root / ("lying", "standing")[number % 2] / ("more" if number % 3 else "") / f"{number:02}.png"
        picture(place, stripe + random.integers(0, 100, (8, 12)))
    (root / ".DS_Store").write_text("hidden")
    (root / "lying" / ".thumbnail.png").write_text("hidden")
    return root


@pytest.fixture(scope="module")
def tones(tmp_path_factory) -> Path:
    """A low or a high tone, of 200 to 299 samples."""
    root, random = tmp_path_factory.mktemp("tones"), np.random.default_rng(0)
    for number in range(30):
        time = np.arange(200 + int(random.integers(100)))
        name = ("high", "low")[number % 2]
        sound(root / name / f"{number:02}.wav", 0.5 * np.sin(time * (1.5 if name == "high" else 0.2) + number))
    return root


@pytest.fixture(scope="module")
def configs(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("configs")
    for name, encoder in (("images", PICTURES), ("recordings", SOUNDS)):
        run = {"model": {"type": "classifier", "encoder": encoder}, "training": TRAINING}
        (folder / f"{name}.yaml").write_text(json.dumps(run | {"data": {"validation_fraction": 0.3}}))
    return {path.stem: path for path in folder.iterdir()}


@pytest.mark.parametrize("kind", ["images", "recordings"])
def test_train_evaluate_classify_and_embed_read_the_same_numbers(kind, stripes, tones, configs, spectral, tmp_path):
    """From the command line alone; beside it the model itself, fed by hand."""
    source = {"images": stripes, "recordings": tones}[kind]
    run = tmp_path / "run"
    ended = spectral("train", configs[kind], "--data", source, "--out", run)
    assert ended.code == 0, ended.err
    metrics = json.loads((run / "metrics.json").read_text())
    total = len(read_folder(str(source)))
    assert metrics[kind] + metrics[f"held_out_{kind}"] == total
    assert "tokens" not in metrics
    assert f"on {metrics[f'held_out_{kind}']} {kind}\n" in ended.out
    losses = [row["loss"] for row in metrics["history"] if "loss" in row]
    assert losses[-1] < losses[0]

    judged = spectral("evaluate", run, "--batch-size", 3)
    assert f"accuracy     {metrics['accuracy']:.4f}" in judged.out
    assert f"loss         {metrics['loss']:.4f} nats" in judged.out
    assert f"measured on  {metrics[f'held_out_{kind}']} {kind}" in judged.out
    everything = spectral("evaluate", run / "model", "--data", source)
    assert f"measured on  {total} {kind}" in everything.out
    assert "trained on part of" in everything.err

    model = load_checkpoint(run)
    labels = sorted(path.name for path in source.iterdir() if path.is_dir())
    assert model.config.labels == tuple(labels)
    files = sorted(source.rglob("[0-9]*.*"))[::7]
    lines = spectral("classify", run, *files, "--json").out.splitlines()
    vectors = spectral("embed", run, *files).out.splitlines()
    for path, line, vector in zip(files, lines, vectors, strict=True):
        with torch.no_grad():
            expected = model(by_hand(path))
        found = json.loads(line)["probabilities"]
        assert [found[label] for label in labels] == pytest.approx(expected.logits.softmax(-1)[0].tolist(), abs=1e-5)
        assert json.loads(vector)["embedding"] == pytest.approx(expected.pooled[0].tolist(), abs=1e-4)
    right = sum(json.loads(line)["label"] in path.parts for path, line in zip(files, lines, strict=True))
    assert right > len(files) / 2


def by_hand(path: Path) -> torch.Tensor:
    """What the file holds, by other means than the reader's."""
    if path.suffix == ".png":
        return ((torch.tensor(np.asarray(Image.open(path))) / 255).double() - 0.25).div(0.125).float()[None, None]
    with wave.open(str(path)) as file:
        return torch.frombuffer(bytearray(file.readframes(10**6)), dtype=torch.int16)[None] / 32768


def test_a_checkpoint_says_how_its_pictures_were_read(stripes, configs, tmp_path):
    run = load_run(configs["images"], {"data.source": str(stripes)})
    task = run.task.load(run.model, run.data)
    saved = load_checkpoint(save_checkpoint(build_model(task.model), tmp_path / "model")).config
    assert saved.encoder.image_size == (8, 12), "training writes the size of its pictures"
    assert saved.encoder.reader() == ImageReader(1, (8, 12), 4, (0.25,), (0.125,))
    assert task.tokenizer is None
    batch = padded([task.train[0], task.train[1]])
    assert set(batch) == {"inputs", "labels"}
    assert batch["inputs"].shape == (2, 1, 8, 12)


def test_the_example_trains_as_it_is_written(stripes, tmp_path):
    from spectral_models.training.run import train

    example = Path(__file__).parents[2] / "examples" / "images.yaml"
    assert load_run(example).data == LabelledFilesConfig(source="digits", validation_fraction=0.2)
    changes = {"training.steps": 1, "model.encoder.hidden_dim": 8, "model.num_labels": 2, "data.source": str(stripes)}
    assert train(load_run(example, changes), tmp_path / "run").model.config.labels == ("lying", "standing")


def test_checkpoints_from_before_run_pixels_from_minus_one_to_one(tmp_path):
    encoder = {"type": "vision_encoder", "frontend": PATCHES, **BLOCK}
    directory = save_checkpoint(build_model({"type": "classifier", "encoder": encoder}), tmp_path / "model")
    record = json.loads((directory / "config.json").read_text())
    fields = record["spectral"]["encoder"]
    assert (fields.pop("image_mean"), fields.pop("image_std")) == ([0.5], [0.5])
    from spectral_models.record import config_of

    reader = config_of(record, directory).reader()
    path = picture(tmp_path / "ramp.png", np.arange(32).reshape(4, 8) * 8)
    expected = torch.arange(32).reshape(1, 4, 8) * 8 / 127.5 - 1
    torch.testing.assert_close(reader(File.at(path)), expected)


def test_each_channel_has_its_mean_and_deviation(tmp_path):
    colours = np.zeros((4, 4, 3), np.uint8)
    colours[..., 0], colours[..., 2] = 255, 51
    path = picture(tmp_path / "red.png", colours)
    found = ImageReader(3, mean=(0.5, 0.25, 0.2), std=(0.25, 0.5, 1.0))(File.at(path))
    torch.testing.assert_close(found.mean((1, 2)), torch.tensor([2.0, -0.5, 0.0]), atol=1e-6, rtol=0)
    assert float(ImageReader(1)(File.at(path)).mean()) == pytest.approx(round(0.299 * 255 + 0.114 * 51) / 127.5 - 1)


def test_a_picture_is_turned_as_its_camera_says(tmp_path):
    image = Image.fromarray((np.indices((8, 16))[1] * 15).astype(np.uint8))
    turned = image.getexif()
    turned[0x0112] = 6  # the first row is the right-hand side
    image.save(tmp_path / "turned.png", exif=turned)
    found = ImageReader(1)(File.at(tmp_path / "turned.png"))
    assert found.shape == (1, 16, 8)
    assert bool((found[0].diff(dim=0) > 0).all())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"image_mean": [0.1, 0.2, 0.3]},
            r"encoder.image_mean: one number for all channels, or one for each of 1; got 3",
        ),
        ({"image_std": [0.0]}, r"encoder.image_std.0: Input should be greater than 0"),
        ({"image_mean": []}, r"encoder.image_mean: .*at least 1 item"),
    ],
)
def test_scalings_that_no_picture_has(settings, message):
    with pytest.raises(ConfigError, match=message):
        build_model({"type": "classifier", "encoder": {**PICTURES, **settings}})


def test_what_is_held_out_has_no_copy_on_the_other_side(tmp_path):
    random = np.random.default_rng(1)
    for number in range(60):
        pixels = random.integers(0, 255, (4, 4))
        for copy in "ab":
            picture(tmp_path / f"class{number % 2}" / f"{copy}{number}.png", pixels)
    tables = load(LabelledFilesConfig(source=str(tmp_path), validation_fraction=0.3))
    sides = [{file.content() for file in table.columns["input"]} for table in tables]
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == 60
    for table in tables:
        labels, names = class_numbers(table, 2)
        assert names == ("class0", "class1")
        files = table.columns["input"]
        assert all(f"class{label}" in file.name for file, label in zip(files, labels, strict=True))
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    again = load(LabelledFilesConfig(source=str(moved), validation_fraction=0.3))
    assert again[1].places == tables[1].places, "wherever the folder lies"


def test_folders_that_hold_no_labelled_files(tmp_path):
    def refused(message: str, labels: int = 2) -> None:
        with pytest.raises(DataError, match=message):
            class_numbers(load(LabelledFilesConfig(source=str(tmp_path)))[0], labels)

    with pytest.raises(DataError, match=r"no such folder .*one folder for each label"):
        read_folder(str(tmp_path / "nowhere"))
    refused(r"holds no folders. Give each label a folder of its own")
    picture(tmp_path / "train" / "a" / "1.png", np.zeros((4, 4)))
    refused(r"\(train\) are parts of a dataset, not labels. Give one as data.source, as in .*train")
    (tmp_path / "train").rename(tmp_path / "cat")
    refused(r"1 row\(s\), of which 1 differ: too few to train on one and hold out another")
    picture(tmp_path / "cat" / "a" / "2.png", np.ones((4, 4)))
    refused(r"has only one label, 'cat', and a classifier tells two or more apart")
    (tmp_path / "dog").mkdir()
    refused(r"dog holds no files, and a label needs examples. Put some there, or remove it")
    picture(tmp_path / "dog" / "1.png", np.ones((4, 4)))
    refused(r"has 2 different labels \(cat, dog\), and the model's num_labels is 3. Set model.num_labels: 2", 3)
    picture(tmp_path / "loose.png", np.ones((4, 4)))
    refused(r"loose.png lies in no label's folder \(1 such file")


def test_numbers_are_labels_as_they_are_unless_they_are_written_otherwise(tmp_path):
    for name in ("0", "1"):
        picture(tmp_path / "plain" / name / "1.png", np.full((4, 4), int(name)))
        picture(tmp_path / "padded" / f"0{name}" / "1.png", np.full((4, 4), int(name)))
    assert class_numbers(load(LabelledFilesConfig(source=str(tmp_path / "plain")))[0], 2)[1] is None
    assert class_numbers(load(LabelledFilesConfig(source=str(tmp_path / "padded")))[0], 2)[1] == ("00", "01")


def test_a_label_that_the_model_has_not(stripes, configs, spectral, tmp_path):
    for name in ("lying", "slanting"):
        picture(tmp_path / "other" / name / "1.png", np.zeros((8, 12)))
    ended = spectral(
        "train",
        configs["images"],
        "--data",
        stripes,
        "--out",
        tmp_path / "run",
        "--set",
        f"data.validation={tmp_path}/other",
    )
    ended.refused(r"other, slanting/1\.png: the label 'slanting' is none of the model's: lying, standing")


@pytest.mark.parametrize(
    ("reader", "write", "message"),
    [
        (
            ImageReader(1, multiple=4),
            lambda path: picture(path, np.zeros((8, 16))),
            r"8 x 16 pixels \(height, width\), and the model takes images of 8 x 12; .* -resize 12x8! OUT.png",
        ),
        (ImageReader(1), lambda path: path.write_text("no"), r"new.png is no image that Pillow reads"),
        (
            ImageReader(1),
            lambda path: Image.fromarray(np.zeros((8, 12), np.uint16)).save(path),
            r"new.png has more than 8 bits a channel \(Pillow's mode I;16\).*-depth 8",
        ),
        (AudioReader(4000), lambda path: sound(path, np.zeros(9), 8000), r"has 8000 samples a second.*needs 4000"),
        (AudioReader(4000), lambda path: sound(path, np.zeros(0)), r"new.png has no samples"),
        (
            AudioReader(4000),
            lambda path: path.write_bytes(b"RIFF"),
            r"new.png is no WAV file .*: it ends early",
        ),
    ],
)
def test_files_that_do_not_fit_are_named_before_anything_is_trained(tmp_path, reader, write, message):
    first = tmp_path / "first.png"
    sound(first, np.zeros(9)) if isinstance(reader, AudioReader) else picture(first, np.zeros((8, 12)))
    write(tmp_path / "new.png")
    files = [File.at(first), File.at(tmp_path / "new.png")]
    with pytest.raises(DataError, match=message):
        FileExamples(files, [0, 1], reader)


def test_pictures_that_patches_do_not_divide_and_damaged_ones(tmp_path):
    odd = picture(tmp_path / "odd.png", np.random.default_rng(0).integers(0, 255, (9, 12)))
    with pytest.raises(DataError, match=r"odd.png is 9 x 12 pixels .* takes images of multiples of 4"):
        ImageReader(1, multiple=4)(File.at(odd))
    odd.write_bytes(odd.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"the image .*odd.png is damaged: .* Repair it, or leave it out"):
        ImageReader(1)(File.at(odd))
    with pytest.raises(DataError, match=r"have 2 channels; files have 1 \(grey\) or 3"):
        ImageReader(2)(File.at(picture(tmp_path / "grey.png", np.zeros((4, 4)))))


@pytest.mark.parametrize("kind", ["images", "recordings"])
def test_a_dataset_gives_the_files_that_it_holds(kind, stripes, tones, tmp_path):
    """Read by our own means: nothing has to be installed that would decode them."""
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = read_folder(str({"images": stripes, "recordings": tones}[kind]))
    column, feature = {"images": ("image", datasets.Image()), "recordings": ("audio", datasets.Audio())}[kind]
    names = sorted(set(folder.columns["label"]))

    def write(features: datasets.Features) -> None:
        rows = [{"bytes": file.content(), "path": None} for file in folder.columns["input"]]
        content = {column: rows, "kind": [names.index(label) for label in folder.columns["label"]]}
        made = pa.table({name: content[name] for name in features}, schema=features.arrow_schema)
        pq.write_table(made, tmp_path / "train.parquet")

    label = datasets.ClassLabel(names=names)
    write(datasets.Features({column: feature, "kind": label}))
    table = LabelledFilesConfig(source="-", label="kind").table(f"datasets:{tmp_path}")
    assert table.columns["label"] == folder.columns["label"]
    assert [file.content() for file in table.columns["input"]] == [file.content() for file in folder.columns["input"]]
    assert table.columns["input"][2].name == f"datasets:{tmp_path}, split 'train', row 3"
    with pytest.raises(DataError, match=r"no field 'label'.*data.label"):
        LabelledFilesConfig(source="-").table(f"datasets:{tmp_path}")
    write(datasets.Features({"kind": label}))
    with pytest.raises(DataError, match=r"has 0 columns of images or audio, and one is needed. Its columns: kind"):
        LabelledFilesConfig(source="-", label="kind").table(f"datasets:{tmp_path}")


# Modes of Pillow's

MODES = ("1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "LA", "PA", "RGBX", "RGBa", "La")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", MODES)
def test_a_picture_of_any_mode_of_eight_bits_is_read(mode, channels):
    """As what is seen of it: whatever is left out, a mid grey stays a mid grey."""
    grey = Image.new("RGB", (8, 4), (255, 255, 255) if mode == "1" else (128, 128, 128))
    steps = {"La": ["LA", "La"], "RGBa": ["RGBA", "RGBa"], "PA": ["P", "PA"]}.get(mode, [mode])
    for step in ["L", *steps] if mode in ("LA", "La") else steps:
        grey = grey.convert(step, palette=Image.Palette.ADAPTIVE)
    assert grey.mode == mode
    values = ImageReader(channels).numbers(grey, "a")
    assert values.shape == (channels, 4, 8)
    wanted = 1.0 if mode == "1" else 0.0
    torch.testing.assert_close(values, torch.full_like(values, wanted), atol=0.05, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("transparency", [0, bytes(range(256))])
def test_transparency_of_a_palette_is_left_out_without_a_warning(tmp_path, channels, transparency):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    coloured = Image.fromarray(pixels).convert("P")
    coloured.save(tmp_path / "plain.png")
    coloured.save(tmp_path / "clear.png", transparency=transparency)
    plain, clear = (ImageReader(channels)(File.at(tmp_path / name)) for name in ("plain.png", "clear.png"))
    torch.testing.assert_close(plain, clear, atol=0.01, rtol=0)


@pytest.mark.parametrize("mode", ["I", "F", "I;16", "I;16B"])
def test_a_picture_of_more_bits_is_refused(mode):
    with pytest.raises(DataError, match=r"more than 8 bits a channel"):
        ImageReader(1).numbers(Image.new(mode, (4, 4)), "a")


def test_a_picture_that_would_fill_the_memory_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = picture(tmp_path / "large.png", np.zeros((60, 60)))
    for limit in (3000, 1000):  # Pillow warns of the first, and refuses the second
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(DataError, match=r"large.png is too large: .*3600 pixels.* Make it smaller"):
            ImageReader(1)(File.at(path))
