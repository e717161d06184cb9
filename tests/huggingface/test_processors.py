"""Pictures and sounds through Hugging Face's pipelines: read as training read them, by what the checkpoint says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoFeatureExtractor, AutoImageProcessor, pipeline

from spectral_models import build_model, load_checkpoint, save_checkpoint
from spectral_models.data import DataError
from spectral_models.data.readers import File, PictureReader
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
    inputs = PictureReader(1, (6, 4), mean=(0.3,), std=(0.2,))(File.at(path))[None]
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
    with pytest.raises(DataError, match=r"number 2 is 4 x 6 pixels .* takes pictures of 6 x 4"):
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
