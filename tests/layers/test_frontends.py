"""Front ends against others' numbers: librosa's mel spectrogram, convolutions by hand, transposed embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from spectral_core import ConfigError, Request, UnsupportedInputError, fft_backend, list_fft_backends
from spectral_layers import FrontEndConfig, LayerContext
from spectral_layers.frontends.mel import Mel, MelConfig, MelScale, hertz_to_mel, mel_to_hertz
from spectral_layers.frontends.patches import PatchesConfig
from spectral_layers.frontends.tokens import TokensConfig

REFERENCE = Path(__file__).parent / "data" / "mel_reference.npz"
SETTINGS = {  # those of data/mel_reference.py
    "slaney": MelConfig(),
    "htk": MelConfig(n_fft=1024, hop_length=256, n_mels=64, scale="htk", f_min=50.0, f_max=7_600.0),
    "music": MelConfig(sample_rate=22_050, n_fft=2048, hop_length=512, n_mels=128),
}


def context(hidden_dim: int = 16, fft: str = "auto") -> LayerContext:
    return LayerContext(hidden_dim, False, fft_backend(fft))


def waveform(dtype: torch.dtype = torch.float32) -> Tensor:
    with np.load(REFERENCE) as data:
        return torch.from_numpy(data["waveform"])[None].to(dtype)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-4), (torch.float64, 1e-6)])
@pytest.mark.parametrize("name", SETTINGS)
def test_spectrograms_are_librosas(name: str, dtype: torch.dtype, bound: float) -> None:
    """Element by element; float32 rounds the quietest, a millionth of the loudest, by what leaks from that."""
    with np.load(REFERENCE) as data:
        reference = torch.from_numpy(data[name]).double()
    found = SETTINGS[name].build(context()).spectrogram(waveform(dtype))[0]
    assert found.dtype == dtype
    assert found.shape == reference.shape
    error = (found.double() - reference).abs() / (reference + 1e-6 * reference.max())
    assert error.max() <= bound


def test_the_comparison_tells_the_scales_apart() -> None:
    """Its bound is no use if another convention passes it."""
    with np.load(REFERENCE) as data:
        reference = torch.from_numpy(data["htk"]).double()
    other = SETTINGS["htk"].model_copy(update={"scale": "slaney"})
    found = other.build(context()).spectrogram(waveform())[0]
    assert ((found.double() - reference).abs() / (reference + 1e-6 * reference.max())).max() > 0.1


@pytest.mark.parametrize("name", [name for name in list_fft_backends() if name != "auto"])
def test_every_backend_hears_the_same(name: str) -> None:
    reasons = fft_backend(name).unsupported_reasons(
        Request("transform", "cpu", torch.float64, 1, 1, 1, 0, "causal", False)
    )
    if reasons:
        pytest.skip(f"{name}: {reasons}")
    expected = MelConfig().build(context(fft="torch")).spectrogram(waveform(torch.float64))
    found = MelConfig().build(context(fft=name)).spectrogram(waveform(torch.float64))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("scale", ["slaney", "htk"])
def test_mel_and_hertz_are_inverses(scale: MelScale) -> None:
    hertz = torch.tensor([0.0, 200.0, 999.0, 1000.0, 4321.0, 11025.0], dtype=torch.float64)
    torch.testing.assert_close(mel_to_hertz(hertz_to_mel(hertz, scale), scale), hertz, rtol=1e-12, atol=1e-9)
    assert hertz_to_mel(hertz, scale)[3].item() == pytest.approx({"slaney": 15.0, "htk": 999.9855}[scale], abs=1e-3)


def test_silence_and_a_loud_tone_lie_within_a_few_units() -> None:
    part = MelConfig().build(context(80))
    with torch.no_grad():
        part.proj.weight.copy_(torch.eye(80))
    tone = torch.sin(2 * torch.pi * 1000 / 16_000 * torch.arange(3200))
    with torch.no_grad():
        assert part(torch.zeros(1, 3200)).x.eq(-1.5).all()
        loud = part(tone[None]).x[0, 5:-5]
    assert loud.max() < 2
    assert (loud.argmax(-1) == loud.argmax(-1)[0]).all()
    assert loud.amax(-1).min() > 0.5


def test_frames_stand_at_every_hop_to_the_last_sample() -> None:
    part = MelConfig().build(context())
    for samples, frames in ((1, 1), (159, 1), (160, 2), (16_000, 101)):
        assert part(torch.zeros(1, samples)).x.shape == (1, frames, 16)


def test_a_click_is_heard_in_the_frames_whose_windows_hold_it() -> None:
    """Frame t reaches n_fft / 2 samples to both sides of its centre."""
    quiet = torch.zeros(1, 3200)
    click = quiet.index_fill(1, torch.tensor([1600]), 0.5)
    part = MelConfig().build(context())
    with torch.no_grad():
        heard = (part(click).x - part(quiet).x)[0].abs().amax(-1) > 1e-6
    assert heard.nonzero().flatten().tolist() == [9, 10, 11]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_model_hears_whole_filters(dtype: torch.dtype) -> None:
    part = MelConfig().build(context())
    exact = part(waveform()).x
    assert ((part.to(dtype)(waveform()).x - exact).norm() / exact.norm()).item() < 0.01


def test_filters_survive_a_model_that_begins_without_memory() -> None:
    with torch.device("meta"):
        part = MelConfig().build(context())
    assert {parameter.device.type for parameter in part.parameters()} == {"meta"}
    part.to_empty(device="cpu").load_state_dict(MelConfig().build(context()).state_dict())
    assert torch.equal(part.filters, MelConfig().build(context()).filters)


def test_patches_are_squares_row_by_row() -> None:
    part = PatchesConfig(size=4, channels=2).build(context()).double()
    pictures = torch.randn(3, 2, 8, 12, dtype=torch.float64)
    output = part(pictures)
    assert output.grid == (2, 3)
    for index, (row, column) in enumerate((row, column) for row in range(2) for column in range(3)):
        square = pictures[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].flatten(1)
        torch.testing.assert_close(output.x[:, index], square @ part.proj.weight.flatten(1).T + part.proj.bias)


def test_the_standard_patch_is_sixteen_pixels_of_three_channels() -> None:
    output = PatchesConfig().build(context())(torch.randn(1, 3, 224, 224))
    assert output.grid == (14, 14)
    assert 0.5 < output.x.std() < 2


def test_a_factorised_embedding_is_a_product_and_its_head_the_transpose() -> None:
    part = TokensConfig(vocab_size=50, embed_dim=6).build(context()).double()
    ids, x = torch.randint(50, (2, 9)), torch.randn(2, 9, 16, dtype=torch.float64)
    table = part.embedding.weight @ part.proj.weight.T
    torch.testing.assert_close(part(ids).x, 4 * table[ids])
    torch.testing.assert_close(part.logits(x), x @ table.T)
    assert sum(parameter.numel() for parameter in part.parameters()) == (50 + 16) * 6


@pytest.mark.parametrize("embed_dim", [None, 16])
def test_an_embedding_as_wide_as_the_model_has_no_projection(embed_dim: int | None) -> None:
    part = TokensConfig(vocab_size=50, embed_dim=embed_dim).build(context())
    assert [tuple(parameter.shape) for parameter in part.parameters()] == [(50, 16)]


@pytest.mark.parametrize("embed_dim", [None, 4, 64])
def test_token_features_begin_at_one_size_at_any_width(embed_dim: int | None) -> None:
    ids = torch.arange(1000)[None]
    for embed_scale, size in ((None, 0.32), (1.0, 0.02)):
        part = TokensConfig(vocab_size=1000, embed_dim=embed_dim, embed_scale=embed_scale).build(context(256))
        assert part(ids).x.std().item() == pytest.approx(size, rel=0.3)
        assert part.feature_size == pytest.approx(size)


@pytest.mark.parametrize(
    ("config", "inputs", "message"),
    [
        (PatchesConfig(), torch.randn(1, 3, 30, 32), "multiples of the patch size 16; got 30 x 32. Resize or pad the"),
        (PatchesConfig(), torch.randn(1, 1, 32, 32), r"\(B, C, H, W\) floats with C = 3; got \(1, 1, 32, 32\)"),
        (PatchesConfig(), torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "uint8 .*Scale integer pixels"),
        (PatchesConfig(), torch.randn(1, 3, 0, 32), "0 x 32"),
        (MelConfig(), torch.zeros(2, 16_000, dtype=torch.int16), "int16 .*divide integer samples"),
        (MelConfig(), torch.zeros(2, 2, 16_000), r"one channel; got \(2, 2, 16000\)"),
        (MelConfig(), torch.zeros(2, 0), "at least one sample"),
        (TokensConfig(), torch.tensor([[3, 256]]), r"from 0 to 255 \(vocab_size 256\); got 3 to 256"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_in_words(config: FrontEndConfig, inputs: Tensor, message: str) -> None:
    with pytest.raises(UnsupportedInputError, match=message):
        config.build(context())(inputs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_fft": 401}, "n_fft: Input should be a multiple of 2"),
        ({"f_max": 9_000.0}, "at most half the sample rate of 16000 Hz; got 0 to 9000 Hz"),
        ({"f_min": 8_000.0}, "got 8000 to 8000 Hz"),
        ({"scale": "bark"}, "scale: Input should be 'slaney' or 'htk'"),
    ],
)
def test_mel_settings_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MelConfig.parse(options)


def test_filters_that_would_hear_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"\d+ of 128 mel filters .* lie between the bins of n_fft 400"):
        MelConfig(scale="htk", n_mels=128).build(context())
    assert isinstance(MelConfig(scale="htk", n_mels=128, n_fft=1024).build(context()), Mel)


def test_bands_are_parts_of_one_projection() -> None:
    """A frame's bands, less the bias each carries, add up to what a single token of it holds."""
    whole, parts = MelConfig().build(context()).double(), MelConfig(bands=8).build(context()).double()
    parts.load_state_dict(whole.state_dict())
    with torch.no_grad():
        one, several = whole(waveform(torch.float64)), parts(waveform(torch.float64))
        assert one.grid is None
        assert several.grid == (one.x.shape[1], 8)
        summed = several.x.unflatten(1, several.grid).sum(2) - 7 * whole.proj.bias
    torch.testing.assert_close(summed, one.x)


def test_a_tone_is_heard_in_its_band_alone() -> None:
    part = MelConfig(bands=8).build(context())
    tone = torch.sin(2 * torch.pi * 1000 / 16_000 * torch.arange(3200))[None]
    noise = 1e-3 * torch.randn(1, 3200)
    with torch.no_grad():
        moved = (part(tone + noise).x - part(noise).x)[0].unflatten(0, (-1, 8))[5:-5].square().sum(-1).mean(0)
    below = (part.filters[:, round(1000 / 40)] > 0).nonzero().flatten() // 10
    assert moved.argmax() in below.tolist()
    assert moved.max() > 0.9 * moved.sum()


def test_bands_share_the_filters_equally() -> None:
    with pytest.raises(ConfigError, match="bands must divide n_mels = 80; got 7"):
        MelConfig.parse({"bands": 7})
