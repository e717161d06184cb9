"""The gates on bands, `phase` and `advanced`, against what each ingredient says it does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from spectral_core import ConfigError, modulate
from spectral_layers import GateContext
from spectral_layers.bands import band_means, contrast, hats, log_energies
from spectral_layers.gates.advanced import Advanced, AdvancedConfig
from spectral_layers.gates.base import Gate, GateConfig
from spectral_layers.gates.entropy import EntropyConfig
from spectral_layers.gates.magnitude import MagnitudeConfig
from spectral_layers.gates.phase import Phase, PhaseConfig
from spectral_layers.mixers.spectral_gating import SpectralGatingConfig
from spectral_layers.testing import GATE_CHECKS, MIXER_CHECKS, Check, GateCase, MixerCase, pairs, spectral_view

EVERYTHING = AdvancedConfig(resolutions=(3, 7), dropout=0.2, entropy=EntropyConfig(target=1.0))
BARE = AdvancedConfig(resolutions=(2,), threshold=None, phase_terms=None, cross_head=False)


@pytest.mark.parametrize(
    ("check", "case"),
    pairs(GATE_CHECKS, [GateCase(config) for config in (EVERYTHING, BARE, PhaseConfig(from_input=True))]),
    ids=str,
)
def test_options_keep_the_promises_of_gates(check: Check[GateCase], case: GateCase) -> None:
    check(case)


@pytest.mark.parametrize("causal", [True, False])
def test_options_keep_the_promises_of_mixers(causal: bool) -> None:
    config = SpectralGatingConfig(gates=(EVERYTHING, PhaseConfig(from_input=True)), block=5, window=14, head_dim=8)
    for check, case in pairs(MIXER_CHECKS, [MixerCase(config, causal=causal, hidden_dim=16, block=5)]):
        check(case)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolutions": [8, 4]}, "resolutions run from coarse to fine, each once; got [8, 4]"),
        ({"resolutions": [4, 4]}, "resolutions run from coarse to fine, each once; got [4, 4]"),
        ({"resolutions": [1, 4]}, "resolutions.0: Input should be greater than or equal to 2 (got 1)"),
        ({"resolutions": []}, "resolutions: The list should have at least 1 item"),
        ({"threshold": 0}, "threshold: Input should be greater than 0 (got 0)"),
        ({"phase_terms": 0}, "phase_terms: Input should be greater than 0 (got 0)"),
        ({"dropout": 1.0}, "dropout: Input should be less than 1 (got 1.0)"),
        ({"entropy": {"target": 1.5}}, "entropy.target: Input should be less than or equal to 1 (got 1.5)"),
        ({"entropy": {"wieght": 1}}, "entropy.wieght: unknown key. Did you mean 'weight'?"),
        ({"bands": 8}, "bands: unknown key."),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        AdvancedConfig.parse(options)
    assert message in str(error.value)


def advanced(heads: int = 2, **options: Any) -> Advanced:
    """An advanced gate in float64 that does nothing yet: gains 1, phases 0, unless options say otherwise."""
    plain = {"resolutions": (4, 8), "threshold": None}
    gate = AdvancedConfig.parse({**plain, **options}).build(GateContext(heads, head_dim=3)).double().eval()
    with torch.no_grad():
        gate.weight.zero_()
    return gate


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def gain_of(gate: Gate, x: Tensor) -> Tensor:
    gain = gate(spectral_view(x)).gain
    assert gain is not None
    return gain


def phase_of(gate: Gate, x: Tensor) -> Tensor:
    phase = gate(spectral_view(x)).phase
    assert phase is not None
    return phase


def tone(n: int, bin_: int) -> Tensor:
    return torch.cos(2 * torch.pi * bin_ / n * torch.arange(n, dtype=torch.float64))


@pytest.mark.parametrize("n", [1, 2, 5, 64, 101])
def test_hats_of_each_resolution_share_every_bin_out(n: int) -> None:
    hat = hats(torch.arange(n // 2 + 1, dtype=torch.float64) / n, 4, 8)
    for part in hat.split([4, 8]):
        torch.testing.assert_close(part.sum(0), torch.ones(n // 2 + 1, dtype=torch.float64))
    constant = torch.full((n // 2 + 1,), 3.0, dtype=torch.float64)
    means = band_means(constant, hat)
    assert set(means.tolist()) <= {1.0, *means[means.sub(3).abs() < 1e-12].tolist()}, "3, or 1 without a bin"


def test_contrast_is_bounded_whatever_is_missing() -> None:
    energies = torch.tensor([[0.0] * 8, [-13.8] * 7 + [2.0], [0.1, -0.1] * 4], dtype=torch.float64)
    flat, lonely, even = contrast(energies)
    assert not flat.any()
    assert lonely.abs().max() < 8**0.5
    torch.testing.assert_close(lonely.sum(), torch.zeros((), dtype=torch.float64))
    torch.testing.assert_close(even, energies[2], rtol=0.01, atol=0)


def test_bands_live_on_frequencies_whatever_the_span() -> None:
    gate = advanced()
    with torch.no_grad():
        gate.bias.normal_()
    short, long = gain_of(gate, noise(1, 2, 3, 32)), gain_of(gate, noise(1, 2, 3, 96))
    torch.testing.assert_close(short, long[..., ::3])


def test_coarse_and_fine_bands_add_up_on_a_bin() -> None:
    gate = advanced(resolutions=(2, 9))
    with torch.no_grad():
        gate.bias[:, 0] = 1.0  # coarse, around 0
        gate.bias[:, 2 + 4] = -3.0  # fine, around 0.25
    gain = gain_of(gate, noise(1, 2, 3, 64))[0, 0, 0]
    logit = torch.logit(gain / 2)
    frequency = torch.arange(33, dtype=torch.float64) / 64
    coarse = 1 - 2 * frequency
    fine = -3 * (1 - 16 * (frequency - 0.25).abs()).clamp(min=0)
    torch.testing.assert_close(logit, coarse + fine)


def test_gates_begin_near_identity() -> None:
    gate = AdvancedConfig().build(GateContext(4, 8)).double()
    modulation = gate(spectral_view(noise(3, 4, 8, 64)))
    assert modulation.gain is not None
    assert (modulation.gain - 1).abs().max() < 0.3
    assert modulation.phase is not None
    assert not modulation.phase.any()
    assert not modulation.losses


def test_energy_in_a_band_moves_the_gain_of_another_as_the_weight_says_and_nothing_else() -> None:
    gate = advanced(resolutions=(8,), cross_head=False)
    with torch.no_grad():
        gate.weight[0, 6, 1] = 1.0  # in head 0, band 1 is heard by band 6
    low, high = (noise(1, 1, 1, 140) * 0.01 + tone(140, 10 * bin_) for bin_ in (1, 4))  # on the centres of bands 1, 4
    x = torch.cat([low, high]).expand(2, 2, 3, 140)
    gain = gain_of(gate, x)
    assert gain[0, 0, 0, 60] > 1.7, "band 6 opens to a tone in band 1"
    assert gain[1, 0, 0, 60] < 0.9, "and closes without it"
    view = spectral_view(x)
    heard = contrast(log_energies(view.relative_power, hats(view.frequency, 8)))
    torch.testing.assert_close(gain[:, 0, 0, 60], 2 * torch.sigmoid(heard[:, 0, 1]))
    elsewhere = torch.ones(71, dtype=torch.bool)
    elsewhere[51:70] = False
    torch.testing.assert_close(gain[..., elsewhere], torch.ones_like(gain[..., elsewhere]))
    torch.testing.assert_close(gain[:, 1], torch.ones_like(gain[:, 1]))


def test_heads_hear_each_other_through_the_exchange_only() -> None:
    x = noise(1, 2, 3, 32)
    louder = x.clone()
    louder[:, 1] += 5 * tone(32, 6)

    def moved(gate: Advanced) -> Tensor:
        with torch.no_grad():
            torch.nn.init.normal_(gate.weight, std=0.3)
            if gate.exchange is not None:
                gate.exchange[0, 1] = 0.5
        return (gain_of(gate, louder) - gain_of(gate, x)).abs().amax((0, 2, 3))

    assert (moved(advanced()) > 0.01).all()
    alone = moved(advanced(cross_head=False))
    assert alone[0] == 0
    assert alone[1] > 0.01


def test_the_threshold_fades_weak_bins_and_keeps_strong_ones() -> None:
    n = 64
    strong, weak = 5, 20
    x = (tone(n, strong) + 0.02 * tone(n, weak)).expand(1, 2, 3, n)
    with_threshold, without = (gain_of(advanced(threshold=value), x)[0, 0, 0] for value in (0.5, None))
    torch.testing.assert_close(without, torch.ones_like(without))
    assert with_threshold[strong] > 0.999
    # Relative magnitudes: rms of the spectrum is that of one tone spread over 33 bins.
    assert with_threshold[weak] < 0.01
    assert with_threshold[10] < 1e-6, "what is empty is cut"
    # The formula, where the threshold is the magnitude itself: half passes.
    relative = spectral_view(x).relative_magnitude[0, 0, 0, weak].item()
    assert gain_of(advanced(threshold=relative), x)[0, 0, 0, weak].item() == pytest.approx(0.5)


def test_a_threshold_is_the_head_s_and_the_band_s_own() -> None:
    gate = advanced(threshold=0.1, resolutions=(4, 8))
    with torch.no_grad():
        assert gate.log_threshold is not None
        gate.log_threshold[1, 7] = 3.0
    gain = gain_of(gate, noise(1, 2, 3, 70))
    assert gain[0, 1, 0, -1] < 1e-3
    assert gain[0, 0, 0, -1] > 0.9
    assert gain[0, 1, 0, :30].min() > 0.9


def test_phases_of_the_basis_are_its_sum_of_sinusoids() -> None:
    gate = advanced(phase_terms=2)
    with torch.no_grad():
        gate.rate.copy_(torch.tensor([[1.0, 2.5], [3.0, 4.0]]))
        gate.sine.copy_(torch.tensor([[0.3, -0.2], [0.0, 0.0]]))
        gate.cosine.copy_(torch.tensor([[0.1, 0.0], [0.0, 0.7]]))
    x = noise(1, 2, 3, 32)
    f = 2 * torch.pi * torch.arange(17, dtype=torch.float64) / 32
    phase = phase_of(gate, x)[0, :, 0]
    expected = [0.3 * torch.sin(f) - 0.2 * torch.sin(2.5 * f) + 0.1 * torch.cos(f), 0.7 * torch.cos(4 * f)]
    torch.testing.assert_close(phase, torch.stack(expected))


def test_the_phase_basis_reaches_a_pure_delay() -> None:
    n, gate = 128, advanced(heads=1, phase_terms=4)
    x = torch.exp(-(((torch.arange(n, dtype=torch.float64) - 50) / 3) ** 2)).expand(1, 1, n)
    view = spectral_view(x[None])
    with torch.no_grad():
        basis = torch.sin(2 * torch.pi * gate.rate[0, :, None] * view.frequency).T
        linear = -2 * torch.pi * 3 * view.frequency[:, None]
        gate.sine.copy_(torch.linalg.lstsq(basis, linear).solution.T)
    phase = phase_of(gate, x[None])[:, 0]
    moved = modulate(x, phase=phase, backend="torch")
    assert (moved - x.roll(3, -1)).norm() / x.norm() < 0.05
    assert (moved - x.roll(-3, -1)).norm() / x.norm() > 1, "an advance is another thing"


def test_energies_turn_the_phases_of_bands() -> None:
    for gate in (advanced(resolutions=(8,)), PhaseConfig(from_input=True).build(GateContext(2, 3)).double()):
        turn = gate.turn if isinstance(gate, Advanced) else gate.weight
        assert turn is not None
        with torch.no_grad():
            turn[0, 6, 1] = 1.0
        x = torch.stack([tone(140, 10), tone(140, 40)])[:, None, None].expand(2, 2, 3, 140)
        phase = phase_of(gate, x)[:, :, 0, 60]
        assert 1.0 < phase[0, 0] < torch.pi
        assert -torch.pi < phase[1, 0] < -1.0
        assert not phase[:, 1].any()


def test_a_phase_gate_turns_its_bands_and_keeps_magnitudes() -> None:
    gate = PhaseConfig(bands=8).build(GateContext(2, 3)).double()
    assert isinstance(gate, Phase)
    with torch.no_grad():
        gate.shift[0, 2] = torch.pi / 2
    modulation = gate(spectral_view(noise(1, 2, 3, 140)))
    assert modulation.gain is None
    assert modulation.phase is not None
    # A cosine on the band's centre comes out as minus its sine; one two bands away as itself.
    x = torch.stack([tone(140, 20), tone(140, 40)]).expand(1, 2, 140)
    y = modulate(x, phase=modulation.phase[:, 0], backend="torch")
    sine = torch.sin(2 * torch.pi * 20 / 140 * torch.arange(140, dtype=torch.float64))
    torch.testing.assert_close(y[0, 0], -sine)
    torch.testing.assert_close(y[0, 1], x[0, 1])


def dropped(gate: Advanced, samples: int) -> Tensor:
    """Gains on the centres of the gate's 8 fine bands: (samples, heads, 8)."""
    return gain_of(gate, noise(samples, 2, 3, 140))[:, :, 0, ::10]


def test_dropout_drops_whole_bands_of_a_sample_and_scales_the_others() -> None:
    gate = advanced(dropout=0.25)
    gains = dropped(gate.train(), 2000)
    assert torch.equal(gains[:, 0], gains[:, 1]), "for all heads"
    one = gains[:, 0]
    torch.testing.assert_close(one[one > 1e-9], torch.full_like(one[one > 1e-9], 1 / 0.75))
    # 2000 draws: the standard deviation of a band's share is 0.01, and of its mean gain 0.013.
    torch.testing.assert_close((one < 1e-9).double().mean(0), torch.full((8,), 0.25).double(), atol=0.04, rtol=0)
    torch.testing.assert_close(one.mean(0), torch.ones(8).double(), atol=0.05, rtol=0)
    assert len(one.bool().unique(dim=0)) > 100, "each sample draws its own bands"


def test_dropout_repeats_under_a_seed_and_rests_in_evaluation() -> None:
    gate = advanced(dropout=0.5)
    x = noise(4, 2, 3, 64)
    torch.testing.assert_close(gain_of(gate, x), torch.ones(4, 2, 1, 33).double())
    gate.train()
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(gain_of(gate, x))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def error_after_training(config: GateConfig) -> float:
    """Relative error of a gate's best at: take out a loud hum, delay the rest by a token."""
    torch.manual_seed(0)
    gate = config.build(GateContext(1, 2))
    optimizer = torch.optim.Adam(gate.parameters(), lr=0.01)
    n = 64
    times = torch.arange(n)
    error = torch.inf
    for _ in range(150):
        rough = torch.randn(16, 2, n)
        signal = modulate(rough, (torch.arange(n // 2 + 1) < 16).float(), backend="torch")
        hum = 2 * torch.cos(2 * torch.pi * (times * 24 / n + torch.rand(16, 2, 1)))
        x = signal + hum
        modulation = gate(spectral_view(x[:, None]))
        gain, phase = (None if f is None else f[:, 0] for f in (modulation.gain, modulation.phase))
        y = modulate(x, gain, phase, backend="torch")
        loss = (y - signal.roll(1, -1)).square().mean() / signal.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        error = loss.item()
    return error


def test_training_finds_a_hum_and_a_delay_where_a_gate_on_magnitudes_cannot() -> None:
    assert error_after_training(AdvancedConfig()) < 0.25
    assert error_after_training(MagnitudeConfig()) > 0.8
