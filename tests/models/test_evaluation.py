"""Bits per byte: of a model, against a computation by hand, and of xz, against its own definition."""

from __future__ import annotations

import lzma
import math
import shutil
import subprocess

import pytest
import torch

from spectral_models import build_model
from spectral_models.data import ByteTokenizer, ContiguousWindows
from spectral_models.evaluation import bits_per_byte, xz_bits_per_byte
from spectral_models.evaluation.change import measure_change

CONTEXT = 16
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


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    made = build_model(MODEL).eval()
    with torch.no_grad():
        made.frontend.embedding.weight.mul_(20)  # far from the uniform distribution, where every mistake looks alike
    return made


def tokens(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count,), generator=torch.Generator().manual_seed(count), dtype=torch.uint8)


def by_hand(model: torch.nn.Module, text: torch.Tensor, context: int) -> float:
    """Window by window and byte by byte, summed in float64."""
    bits, predicted = [], 0
    for start in range(0, len(text) - 1, context):
        window = text[start : start + context + 1].long()
        with torch.no_grad():
            log_probability = model(window[None, :-1]).logits[0].double().log_softmax(-1)
        for position, byte in enumerate(window[1:].tolist()):
            bits.append(-float(log_probability[position, byte]) / math.log(2))
            predicted += 1
    assert predicted == len(text) - 1, "every byte but the first, once"
    return math.fsum(bits) / predicted


@pytest.mark.parametrize("count", [2, CONTEXT, CONTEXT + 1, CONTEXT + 2, 5 * CONTEXT + 1, 5 * CONTEXT + 4])
@pytest.mark.parametrize("batch_size", [1, 4, 32])
def test_bits_per_byte_is_the_mean_over_every_predicted_byte(model, count, batch_size):
    """Whole windows, a short last one, and one byte in a window of its own; in batches that divide them or not."""
    text = tokens(count)
    found = bits_per_byte(model, ContiguousWindows(text, CONTEXT), batch_size=batch_size)
    assert found == pytest.approx(by_hand(model, text, CONTEXT), rel=1e-6)
    assert found > 8.5, "a wrong model must not look like a uniform one"


def test_the_short_last_window_counts_by_its_bytes(model):
    """Not as one window among others: the mean of windows' means would differ."""
    text = tokens(2 * CONTEXT + 3)
    windows = ContiguousWindows(text, CONTEXT)
    means = [by_hand(model, text[start : start + CONTEXT + 1], CONTEXT) for start in range(0, 2 * CONTEXT + 1, CONTEXT)]
    assert abs(sum(means) / 3 - by_hand(model, text, CONTEXT)) > 0.01
    assert bits_per_byte(model, windows) == pytest.approx(by_hand(model, text, CONTEXT), rel=1e-6)


def test_a_uniform_model_needs_eight_bits_and_auxiliary_losses_none(model):
    with torch.no_grad():
        saved = model.frontend.embedding.weight.clone()
        model.frontend.embedding.weight.zero_()
    try:
        text = tokens(100)
        with torch.no_grad():
            assert float(sum(model(text[None].long()).losses.values())) > 0
        assert bits_per_byte(model, ContiguousWindows(text, CONTEXT)) == pytest.approx(8, abs=1e-6)
    finally:
        with torch.no_grad():
            model.frontend.embedding.weight.copy_(saved)


def test_evaluation_records_no_gradients_and_changes_nothing(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    windows = ContiguousWindows(tokens(50), CONTEXT)
    assert bits_per_byte(model, windows) == bits_per_byte(model, windows)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.training


@pytest.mark.parametrize("data", [b"a", b"ab" * 5000, bytes(range(256)) * 20], ids=["one", "regular", "ramp"])
def test_xz_is_the_whole_container_at_preset_nine(data):
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9}]
    packed = lzma.compress(data, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC64, filters=filters)
    assert lzma.decompress(packed) == data
    assert xz_bits_per_byte(data) == 8 * len(packed) / len(data)


@pytest.mark.skipif(shutil.which("xz") is None, reason="the xz program is not installed")
def test_xz_is_what_the_program_writes():
    data = "".join(f"line {i}: the quick brown fox {i * i % 97}\n" for i in range(3000)).encode()
    packed = subprocess.run(["xz", "-9", "-c", "-T1"], input=data, capture_output=True, check=True).stdout
    assert xz_bits_per_byte(data) == 8 * len(packed) / len(data)


TEXTS = {"type": "encoder", "hidden_dim": 16, "num_layers": 1, "block": {"mixer": "fourier", "feedforward": "mlp"}}
AUDIO = {**TEXTS, "type": "audio_encoder", "num_layers": 2}
CLASSIFIER = {"type": "classifier", "encoder": TEXTS}
LABELLED = {
    "labels": (CLASSIFIER, "same label for 2 pieces of it"),
    "sets of labels": ({**CLASSIFIER, "problem_type": "multi_label_classification"}, "same label for 2 pieces of it"),
    "numbers": ({**CLASSIFIER, "problem_type": "regression"}, "cosine of numbers for 2 pieces of it"),
    "tags": ({"type": "token_classifier", "encoder": TEXTS}, "same label for 2 pieces of it"),
    "modalities": ({"type": "multimodal", "encoders": {"a": TEXTS, "b": AUDIO}}, "same label for 64 random inputs"),
    "embeddings": (TEXTS, "cosine of embeddings of 2 pieces of it"),
}


@pytest.mark.parametrize("kind", LABELLED)
def test_a_change_of_every_kind_of_labelled_model_is_measured(kind: str) -> None:
    config, measure = LABELLED[kind]
    torch.manual_seed(0)
    model = build_model(config).eval()
    text = b"some words, " * 30

    def turned_round() -> None:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.startswith("head") or kind == "embeddings":
                    parameter.neg_()

    same = measure_change(model, lambda: None, text, "it", ByteTokenizer())
    assert (same.measure, same.before, same.after) == (measure, None, pytest.approx(1.0))
    other = measure_change(model, turned_round, text, "it", ByteTokenizer())
    assert other.after < 0.6, other
