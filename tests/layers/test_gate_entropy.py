"""Entropy regularisation: the usage of a spectrum, measured on known ones, and what follows from it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from spectral_layers import GateContext, Modulation
from spectral_layers.bands import hats
from spectral_layers.gates.advanced import Advanced, AdvancedConfig
from spectral_layers.gates.entropy import spectral_usage, usage_entropy
from spectral_layers.testing import spectral_view

BANDS = 8
N = 140  # every tenth bin is a band's centre


def frequency(n: int = N) -> Tensor:
    return torch.arange(n // 2 + 1, dtype=torch.float64) / n


def regularised(*, target: float = 0.9, weight: float = 1.0, **options: Any) -> Advanced:
    """Gains 1, phases 0, and a regulariser."""
    entropy = {"target": target, "weight": weight, "noise": 0.0, "diversity": 0.0, **options}
    config = {"resolutions": (4, BANDS), "threshold": None, "phase_terms": None, "entropy": entropy}
    gate = AdvancedConfig.parse(config).build(GateContext(2, head_dim=3)).double().eval()
    with torch.no_grad():
        gate.weight.zero_()
    return gate


def impulse(n: int = N) -> Tensor:
    x = torch.zeros(1, 2, 3, n, dtype=torch.float64)
    x[..., 0] = 1.0
    return x


def tone(n: int = N, bin_: int = 30) -> Tensor:
    return torch.cos(2 * torch.pi * bin_ / n * torch.arange(n, dtype=torch.float64)).expand(1, 2, 3, n)


def scalar(modulation: Modulation, name: str) -> float:
    return {**modulation.losses, **{f"metric {key}": value for key, value in modulation.metrics.items()}}[name].item()


def test_usage_and_entropy_of_known_spectra() -> None:
    hat = hats(frequency(), BANDS)
    flat = torch.ones(N // 2 + 1, dtype=torch.float64)
    torch.testing.assert_close(spectral_usage(flat, hat), torch.full((BANDS,), 1 / BANDS).double())
    assert usage_entropy(spectral_usage(flat, hat), hat).item() == pytest.approx(1.0)
    line = torch.zeros_like(flat)
    line[30] = 1.0
    assert spectral_usage(line, hat)[3].item() == pytest.approx(1.0)
    assert usage_entropy(spectral_usage(line, hat), hat).item() == pytest.approx(0.0, abs=1e-9)
    line[50] = 1.0  # two bands, evenly
    assert usage_entropy(spectral_usage(line, hat), hat).item() == pytest.approx(math.log(2) / math.log(BANDS))
    # Level does not matter, nor does a gate that is shut altogether leave a hole.
    assert usage_entropy(spectral_usage(1e-6 * flat, hat), hat).item() == pytest.approx(1.0)
    assert usage_entropy(spectral_usage(0 * flat, hat), hat).item() == pytest.approx(1.0)


@pytest.mark.parametrize("n", [2, 3, 4, 7])
def test_bands_without_a_bin_do_not_count(n: int) -> None:
    hat = hats(frequency(n), BANDS)
    flat = torch.ones(n // 2 + 1, dtype=torch.float64, requires_grad=True)
    usage = spectral_usage(flat, hat)
    assert ((usage > 0) == (hat.sum(-1) > 0)).all()
    entropy = usage_entropy(usage, hat)
    assert entropy.item() == pytest.approx(1.0)
    entropy.backward()
    assert flat.grad is not None
    assert flat.grad.isfinite().all()


def test_metrics_and_loss_of_a_flat_spectrum_and_of_a_tone() -> None:
    gate = regularised(target=0.9, weight=0.5)
    flat, single = gate(spectral_view(impulse())), gate(spectral_view(tone()))
    assert scalar(flat, "metric entropy") == pytest.approx(1.0)
    assert scalar(flat, "entropy") == pytest.approx(0.5 * 0.1**2)
    assert scalar(single, "metric entropy") == pytest.approx(0.0, abs=1e-3)
    assert scalar(single, "metric entropy_gap") == pytest.approx(0.9, abs=1e-3)
    assert scalar(single, "entropy") == pytest.approx(0.5 * 0.9**2, abs=1e-3)


def test_usage_is_of_what_the_gate_lets_through() -> None:
    gate = regularised()
    with torch.no_grad():
        gate.bias[:, 4:] = -20.0
        gate.bias[:, 4 + 3] = 0.0  # band 3 alone stays open
    assert scalar(gate(spectral_view(impulse())), "metric entropy") < 0.5


def test_each_sample_counts_by_itself_and_silence_not_at_all() -> None:
    gate = regularised(target=0.9)
    both = gate(spectral_view(torch.cat([impulse(), tone()])))
    parts = [scalar(gate(spectral_view(x)), "entropy") for x in (impulse(), tone())]
    assert scalar(both, "entropy") == pytest.approx(sum(parts) / 2)
    silent = 0 * tone()
    assert scalar(gate(spectral_view(torch.cat([silent, tone(), silent]))), "entropy") == pytest.approx(parts[1])
    assert scalar(gate(spectral_view(silent)), "entropy") == 0.0
    assert scalar(gate(spectral_view(torch.ones(1, 2, 3, 1, dtype=torch.float64))), "entropy") == 0.0, "a single band"


def test_diversity_opens_bands_used_less_and_closes_those_used_more_below_the_target_only() -> None:
    x = impulse() + 0.2 * tone()
    centres = torch.arange(0, N // 2 + 1, 10)
    moved = regularised(target=1.0, diversity=2.0)(spectral_view(x))
    assert moved.gain is not None
    gain = moved.gain[0, 0, 0, centres]
    assert gain[3] < 0.9
    assert (gain[torch.arange(BANDS) != 3] > 1.1).all()
    plain = regularised(target=1.0)(spectral_view(x))
    hat = hats(frequency(), BANDS)
    power = spectral_view(x).relative_magnitude.square().mean(2)

    def used(modulation: Modulation) -> float:
        assert modulation.gain is not None
        return usage_entropy(spectral_usage(power * modulation.gain[:, :, 0].square(), hat), hat)[0, 0].item()

    assert used(moved) > used(plain) + 0.05
    reached = regularised(target=used(plain) - 0.01, diversity=2.0)(spectral_view(x)).gain
    assert reached is not None
    torch.testing.assert_close(reached, torch.ones_like(reached))


def test_noise_on_logits_grows_with_the_gap_and_stays_in_training() -> None:
    gate = regularised(target=1.0, noise=0.5)
    with torch.no_grad():
        for x, spread in ((tone(), 0.5), (impulse(), 0.0)):
            many = spectral_view(x.expand(2000, 2, 3, N))
            quiet, noisy = gate.eval()(many).gain, gate.train()(many).gain
            assert quiet is not None
            assert noisy is not None
            torch.testing.assert_close(quiet, torch.ones_like(quiet))
            logits = torch.logit(noisy[:, :, 0, ::10] / 2)  # on the bands' centres
            torch.testing.assert_close(logits.std(0), torch.full((2, BANDS), spread).double(), atol=0.04, rtol=0)
            assert logits.mean(0).abs().max() < 0.06


def test_training_on_the_loss_alone_reaches_the_target_from_both_sides() -> None:
    for x, target in ((impulse() + tone() / 3, 0.95), (impulse(), 0.6)):
        gate = regularised(target=target)
        optimizer = torch.optim.Adam(gate.parameters(), lr=0.05)
        with torch.no_grad():
            gate.bias.normal_(std=0.1)
        before = scalar(gate(spectral_view(x)), "metric entropy")
        assert abs(before - target) > 0.04
        for _ in range(100):
            loss = gate(spectral_view(x)).losses["entropy"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert scalar(gate(spectral_view(x)), "metric entropy") == pytest.approx(target, abs=0.01)
