"""Pictures and sounds through Hugging Face's pipelines: read as training read them, by what the checkpoint says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoFeatureExtractor, AutoImageProcessor, pipeline

from spectral_models import build_model, load_checkpoint, save_checkpoint
from spectral_models.data import DataError
from spectral_models.data.readers import File, ImageReader
from spectral_models.integrations.huggingface import SpectralForImageClassification, SpectralImageProcessor

SCALING = {"image_size": [6, 4], "image_mean": [0.3], "image_std": [0.2]}


@pytest.fixture
def pictures(kinds, tmp_path):
    config = kinds["pictures"].config
    torch.manual_seed(0)
    model = build_model({**config, "encoder": {**config["encoder"], **SCALING}})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))  # so that labels differ
    return save_checkpoint(model, tmp_path / "pictures")


def by_label(found):
    return [line["score"] for line in sorted(found, key=lambda line: line["label"])]


def test_a_pipeline_gives_pictures_the_labels_that_the_model_does(pictures, tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (6, 4, 3), dtype=np.uint8)).save(path)
    inputs = ImageReader(1, (6, 4), mean=(0.3,), std=(0.2,))(File.at(path))[None]
    with torch.no_grad():
        expected = load_checkpoint(pictures)(inputs).logits.softmax(-1)[0]
    assert by_label(pipeline("image-classification", model=str(pictures))(str(path))) == pytest.approx(
        expected.tolist(), abs=1e-5
    )
    model = SpectralForImageClassification.from_pretrained(pictures)
    model.save_pretrained(tmp_path / "theirs")
    for place in (pictures, tmp_path / "theirs"):
        processor = AutoImageProcessor.from_pretrained(place)
        assert type(processor) is SpectralImageProcessor
        with Image.open(path) as picture:
            values = processor([picture, picture], return_tensors="pt")["pixel_values"]
            assert torch.equal(values, inputs.expand(2, -1, -1, -1))
            assert torch.equal(processor(np.asarray(picture), return_tensors="pt")["pixel_values"], inputs)


def test_a_picture_of_another_size_is_refused_by_its_number(pictures):
    processor = AutoImageProcessor.from_pretrained(pictures)
    with pytest.raises(DataError, match=r"number 2 is 4 x 6 pixels .* takes images of 6 x 4"):
        processor([Image.new("L", (4, 6)), Image.new("L", (6, 4))])


def test_a_pipeline_gives_sounds_the_labels_that_the_model_does(kinds, tmp_path):
    torch.manual_seed(0)
    model = build_model(kinds["sound"].config).eval()
    save_checkpoint(model, tmp_path / "sounds")
    samples = 0.3 * np.random.default_rng(0).standard_normal(300).astype(np.float32)
    with torch.no_grad():
        expected = model(torch.from_numpy(samples)[None]).logits.softmax(-1)[0]
    found = pipeline("audio-classification", model=str(tmp_path / "sounds"))(samples)
    assert by_label(found) == pytest.approx(expected.tolist(), abs=1e-5)
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path / "sounds")
    assert extractor.sampling_rate == 4000
    with pytest.raises(ValueError, match="was trained using a sampling rate of 4000"):
        extractor(samples, sampling_rate=8000)
    both = extractor([samples, samples[:100]], sampling_rate=4000, padding=True, return_tensors="pt")
    with torch.no_grad():
        padded = model(both["input_values"], both["attention_mask"]).logits.softmax(-1)
        alone = model(torch.from_numpy(samples[:100])[None]).logits.softmax(-1)
    torch.testing.assert_close(padded, torch.stack([expected, alone[0]]), atol=1e-5, rtol=0)


# Arrays and tensors

BYTES = np.random.default_rng(1).integers(0, 256, (6, 4, 3), dtype=np.uint8)
FLOATS = BYTES.astype(np.float32) / 255


def expected_of(channels: int) -> torch.Tensor:
    picture = Image.fromarray(BYTES).convert("L" if channels == 1 else "RGB")
    pixels = torch.from_numpy(np.asarray(picture).reshape(6, 4, channels).astype(np.float32)).permute(2, 0, 1)
    return (pixels / 255 - 0.3) / 0.2


GIVEN = {
    "a picture": Image.fromarray(BYTES),
    "an array": BYTES,
    "channels first": BYTES.transpose(2, 0, 1),
    "a tensor": torch.from_numpy(BYTES),
    "a tensor, channels first": torch.from_numpy(BYTES).permute(2, 0, 1),
    "floats": FLOATS,
    "floats, channels first": FLOATS.transpose(2, 0, 1),
    "doubles": FLOATS.astype(np.float64),
    "a tensor of floats with a gradient": torch.from_numpy(FLOATS).requires_grad_(),
    "with transparency": np.concatenate([BYTES, BYTES[..., :1]], -1),
    "floats with transparency": np.concatenate([FLOATS, FLOATS[..., :1]], -1),
    "a batch": np.stack([BYTES] * 2),
    "a batch, channels first": np.stack([BYTES.transpose(2, 0, 1)] * 2),
    "a batch of floats": torch.from_numpy(FLOATS).permute(2, 0, 1).expand(2, -1, -1, -1),
    "a list": [BYTES, Image.fromarray(BYTES)],
    "lists of lists": [[BYTES], [FLOATS, BYTES.transpose(2, 0, 1)]],
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("given", GIVEN)
def test_arrays_become_what_the_picture_does(given, channels):
    processor = SpectralImageProcessor(channels, image_mean=[0.3], image_std=[0.2])
    values = processor(GIVEN[given], return_tensors="pt")["pixel_values"]
    expected = expected_of(channels)[None].expand(len(values), -1, -1, -1)
    # Grey of bytes is rounded to a byte, as in training; grey of floats is not.
    bound = 0.51 / 255 / 0.2 if channels == 1 else 1e-5
    torch.testing.assert_close(values, expected, atol=bound, rtol=0)
    if "float" not in given and "double" not in given and "lists" not in given:
        assert torch.equal(values, expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_arrays_and_masks(channels):
    processor = SpectralImageProcessor(channels)
    grey = BYTES[..., 0]
    expected = torch.from_numpy(grey.astype(np.float32) / 127.5 - 1).expand(1, channels, -1, -1)
    for given in (grey, grey[..., None], grey[None], grey / 255, torch.from_numpy(grey / 255)[None]):
        values = processor(given, return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(values, expected, atol=1e-5, rtol=0)
    mask = processor(grey > 99, return_tensors="pt")["pixel_values"]
    assert torch.equal(mask, (torch.from_numpy(grey > 99) * 2.0 - 1).expand(1, channels, -1, -1))


def test_which_axis_has_the_channels_is_known_from_the_size_or_told():
    """(3, 8, 3) is two pictures."""
    array = np.random.default_rng(2).integers(0, 256, (3, 8, 3), dtype=np.uint8)
    wide, tall = array, array.transpose(1, 2, 0)  # of 3 x 8 and of 8 x 3 pixels
    reader = ImageReader(3)
    for picture, size, told in ((wide, (3, 8), "channels_last"), (tall, (8, 3), "channels_first")):
        expected = reader.numbers(Image.fromarray(picture), "")[None]
        sized = SpectralImageProcessor(3, {"height": size[0], "width": size[1]})
        assert torch.equal(sized(array, return_tensors="pt")["pixel_values"], expected)
        found = SpectralImageProcessor(3)(array, return_tensors="pt", input_data_format=told)
        assert torch.equal(found["pixel_values"], expected)
    with pytest.raises(DataError, match=r"number 1 is an array of shape \(3, 8, 3\), whose channels are its first"):
        SpectralImageProcessor(3)(array)


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ([], {}, r"at least one; got no images"),
        (BYTES[None, :0].reshape(0, 6, 4, 3), {}, r"got no images"),
        (BYTES[:0], {}, r"channels are 1, 3 or 4"),
        (BYTES.astype(np.uint16), {}, r"an array of uint16; bytes"),
        (BYTES.astype(np.int64), {}, r"an array of int64; bytes"),
        (torch.from_numpy(BYTES).long(), {}, r"an array of int64"),
        (FLOATS * 255, {}, r"floats from \S+ to 25\d, and floats run from 0 to 1. Divide"),
        (FLOATS - 0.5, {}, r"floats from -0.\d+ to 0.\d+, and"),
        (FLOATS * np.nan, {}, r"floats from nan to nan"),
        (FLOATS * 1e30, {}, r"floats run from 0 to 1"),
        (FLOATS * np.inf, {}, r"floats run from 0 to 1"),
        (np.zeros((6, 4, 2), np.uint8), {}, r"\(6, 4, 2\); channels are 1, 3 or 4"),
        (np.zeros((6, 4, 5), np.float32), {}, r"\(6, 4, 5\); channels are 1, 3 or 4"),
        (np.zeros((1, 1, 6, 4, 3), np.uint8), {}, r"got an array of shape \(1, 1, 6, 4, 3\)"),
        (np.zeros(6, np.uint8), {}, r"got an array of shape \(6,\)"),
        ("picture.png", {}, r"got str. PIL.Image.open"),
        ([BYTES, None], {}, r"got NoneType"),
        (b"bytes", {}, r"got bytes"),
        (np.array(["a"]), {}, r"got an array of shape"),
        (np.zeros((6, 4, 3), object), {}, r"an array of object"),
        (BYTES, {"input_data_format": "first"}, r"input_data_format is channels_first or channels_last; got 'first'"),
        (BYTES, {"do_resize": True}, r"do_resize=True is not possible"),
        (BYTES, {"do_rescale": False}, r"do_rescale=False is not possible"),
        (BYTES, {"size": 224}, r"size=224 is not possible"),
        (
            [BYTES, BYTES[:5]],
            {"return_tensors": "pt"},
            r"of one size.* got images of 5 x 4 and 6 x 4",
        ),
    ],
)
def test_arrays_that_could_mean_two_things_are_refused(given, options, message):
    with pytest.raises(DataError, match=message):
        SpectralImageProcessor(3)(given, **options)


def test_a_size_is_a_height_and_a_width(tmp_path):
    assert SpectralImageProcessor(size=8).size == {"height": 8, "width": 8}
    with pytest.raises(DataError, match=r"shortest_edge"):
        SpectralImageProcessor(size={"shortest_edge": 8})


def test_a_picture_that_is_damaged_is_so_in_a_pipeline_too(tmp_path):
    path = tmp_path / "cut.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with Image.open(path) as picture, pytest.raises(DataError, match=r"the image number 1 is damaged"):
        SpectralImageProcessor(3)(picture)
