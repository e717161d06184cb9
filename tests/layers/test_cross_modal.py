"""What cross_modal does to spectra: it resamples, aligns and weighs them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from spectral_core import ConfigError, Spectrum, UnsupportedInputError, fft_backend
from spectral_layers import LayerContext, Rows, Stream
from spectral_layers.bands import hats, log_energies
from spectral_layers.fusion.cross_modal import Alignment, CrossModal, CrossModalConfig
from spectral_layers.fusion.resampling import resampled

FFT = fft_backend("torch")
DIM = 8


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def frequencies(points: int) -> Tensor:
    return torch.arange(points // 2 + 1, dtype=torch.float64) / points


def build(*names: str, temperature: float = 1.0) -> CrossModal:
    config = CrossModalConfig(modalities=names, head_dim=4, temperature=temperature)
    return config.build(LayerContext(DIM, False, FFT)).double()


def resample(x: Tensor, wanted: int) -> Tensor:
    return FFT.irfft(resampled(FFT.rfft(x, x.shape[-1]), x.shape[-1], wanted), wanted)


@pytest.mark.parametrize(("points", "wanted"), [(8, 12), (8, 13), (9, 12), (9, 21), (1, 5), (2, 3), (7, 7)])
def test_resampling_up_keeps_the_samples_and_back_down_is_the_identity(points: int, wanted: int) -> None:
    x = noise(3, points)
    up = resample(x, wanted)
    torch.testing.assert_close(resample(up, points), x)
    torch.testing.assert_close(resample(x, 3 * points)[..., ::3], x)


@pytest.mark.parametrize(("points", "wanted"), [(40, 10), (40, 41), (33, 64), (6, 100)])
def test_a_slow_wave_keeps_its_shape_at_any_rate(points: int, wanted: int) -> None:
    def wave(n: int) -> Tensor:
        t = torch.arange(n, dtype=torch.float64) / n
        return 3 + torch.cos(2 * math.pi * t + 1) + torch.sin(4 * math.pi * t)

    torch.testing.assert_close(resample(wave(points), wanted), wave(wanted))


@pytest.mark.parametrize("points", [1, 2, 5, 16, 31])
def test_bands_share_out_every_bin(points: int) -> None:
    hat = hats(frequencies(points), 8)
    torch.testing.assert_close(hat.sum(0), torch.ones_like(hat[0]))
    power = noise(3, points // 2 + 1).square()
    flat = log_energies(torch.ones_like(power), hat)
    torch.testing.assert_close(flat, torch.zeros_like(flat), atol=1e-5, rtol=0)
    assert (log_energies(10 * power, hat) - log_energies(power, hat) <= math.log(10) + 1e-9).all()


@pytest.mark.parametrize("delay", [1, 5, 17])
def test_a_delay_is_undone_whatever_it_is(delay: int) -> None:
    alignment = Alignment(("a", "m"), heads=1, bands=8).double()
    with torch.no_grad():
        alignment.strength.fill_(30.0)
    x = noise(2, 4, 32)
    a, m = (Spectrum(*(32**-0.5 * part[:, None] for part in FFT.rfft(signal, 32))) for signal in (x, x.roll(delay, -1)))
    powers = [(part.real.square() + part.imag.square()).mean(2) for part in (a, m)]
    hat = hats(frequencies(32), 8)
    turned = alignment(a, m, *powers, ("a", "m"), hat)
    torch.testing.assert_close(FFT.irfft(turned, 32), FFT.irfft(a, 32), rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        alignment.strength.fill_(-30.0)
    torch.testing.assert_close(FFT.irfft(alignment(a, m, *powers, ("a", "m"), hat), 32), FFT.irfft(m, 32))


def test_what_streams_do_not_share_is_muted_and_turns_are_opposite_for_the_two_of_a_pair() -> None:
    alignment = Alignment(("a", "m"), heads=1, bands=8).double()
    with torch.no_grad():
        alignment.strength.fill_(30.0)
        alignment.turn.fill_(0.7)
    x = noise(1, 1, 256, 32)
    a, m = (Spectrum(*FFT.rfft(signal, 32)) for signal in (x, noise(1, 1, 256, 32, seed=1)))
    powers = [(part.real.square() + part.imag.square()).mean(2) for part in (a, m)]
    hat = hats(frequencies(32), 8)
    muted = alignment(a, m, *powers, ("a", "m"), hat)
    assert muted.real.norm() < 0.2 * m.real.norm(), "streams of noise have nothing in common"
    forth = alignment(a, a, powers[0], powers[0], ("a", "m"), hat)
    back = alignment(a, a, powers[0], powers[0], ("m", "a"), hat)
    angle = torch.atan2(forth.imag, forth.real) - torch.atan2(back.imag, back.real)
    inner = angle[..., 1:-1]
    torch.testing.assert_close(torch.cos(inner), torch.full_like(inner, math.cos(1.4)))
    torch.testing.assert_close(torch.sin(inner), torch.full_like(inner, math.sin(1.4)))


def test_importance_follows_the_power_and_a_cooler_temperature_decides_more() -> None:
    x = {"text": noise(2, 6, DIM), "image": noise(2, 40, DIM, seed=1), "sound": noise(2, 9, DIM, seed=2)}

    def importance(fusion: CrossModal, loudness: float) -> dict[str, float]:
        streams = {name: Stream(loudness * part if name == "image" else part) for name, part in x.items()}
        metrics = fusion(streams, "text").metrics
        assert sum(metrics.values()) == pytest.approx(1.0)
        return {name.removeprefix("importance."): value.item() for name, value in metrics.items()}

    fusion = build(*x)
    quiet, usual, loud = (importance(fusion, loudness)["image"] for loudness in (0.01, 1.0, 100.0))
    assert quiet < usual / 10
    assert usual < 1 / 3 < 0.9 < loud
    with torch.no_grad():
        fusion.log_temperature.fill_(math.log(0.1))
    assert importance(fusion, 100.0)["image"] > 0.999


def test_a_modality_missing_in_one_row_is_missing_there_alone() -> None:
    fusion = build("text", "sound")
    text, sound = noise(2, 6, DIM), noise(2, 9, DIM, seed=1)
    y = fusion({"text": Stream(text), "sound": Stream(sound, Rows(torch.tensor([9, 0])))}, "text")
    torch.testing.assert_close(y.y[:1], fusion({"text": Stream(text[:1]), "sound": Stream(sound[:1])}, "text").y)
    torch.testing.assert_close(y.y[1:], fusion({"text": Stream(text[1:])}, "text").y)
    assert y.metrics["importance.sound"] < 0.5 < y.metrics["importance.text"]


def test_a_misspelt_modality_is_named_with_a_suggestion() -> None:
    streams = {"text": Stream(noise(1, 5, DIM)), "sonud": Stream(noise(1, 5, DIM))}
    with pytest.raises(UnsupportedInputError, match=r"no stream 'sonud'\. Did you mean 'sound'\? .* text, sound; any"):
        build("text", "sound")(streams, "text")


def test_configs_that_cannot_work() -> None:
    with pytest.raises(ConfigError, match="modalities must have distinct names that are not empty; got"):
        CrossModalConfig.parse({"modalities": ["text", "text"]})
    with pytest.raises(ConfigError, match="modalities: The list should have at least 2 items"):
        CrossModalConfig.parse({"modalities": ["text"]})
    config = CrossModalConfig(modalities=("text", "sound"), head_dim=4)
    with pytest.raises(ConfigError, match=r"cross_modal cannot be causal, only bidirectional"):
        config.build(LayerContext(DIM, True, FFT))
    with pytest.raises(ConfigError, match="head_dim 4 does not divide hidden_dim 6"):
        config.build(LayerContext(6, False, FFT))


def test_names_may_be_anything() -> None:
    # Parameters are kept by order: a name that a module has an attribute of (keys, type) breaks nothing.
    fusion = build("keys", "type", "image.patches")
    streams = {name: Stream(noise(1, 5, DIM)) for name in ("keys", "type", "image.patches")}
    assert isinstance(fusion.modalities, nn.ModuleList)
    assert fusion(streams, "type").y.shape == (1, 5, DIM)


def test_a_model_names_the_streams_that_a_config_does_not() -> None:
    def built(modalities: tuple[str, ...] | None, streams: tuple[str, ...] | None) -> CrossModal:
        return CrossModalConfig(modalities=modalities, head_dim=4).build(LayerContext(DIM, False, FFT, streams=streams))

    assert built(None, ("sound", "text")).names == ("sound", "text")
    assert built(("text", "sound"), ("sound", "text")).names == ("text", "sound")
    with pytest.raises(ConfigError, match=r"modalities are a, b, and the model's are b, c\. Leave them out"):
        built(("a", "b"), ("b", "c"))
    for streams in (None, ("text",)):
        with pytest.raises(ConfigError, match="fuses two streams or more: name them in modalities"):
            built(None, streams)


def test_rows_that_are_all_full_are_no_rows() -> None:
    fusion, x = build("text", "sound"), {"text": noise(3, 6, DIM), "sound": noise(3, 9, DIM, seed=1)}
    bare = fusion({name: Stream(part) for name, part in x.items()}, "text")
    full = fusion({name: Stream(part, Rows(torch.full((3,), part.shape[1]))) for name, part in x.items()}, "text")
    torch.testing.assert_close(bare.y, full.y)
    torch.testing.assert_close(bare.metrics, full.metrics)
    assert fusion({name: Stream(part[:0]) for name, part in x.items()}, "text").y.shape == (0, 6, DIM)
