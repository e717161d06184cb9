"""From a gate's fields to what the mixer does with them: views, minimum phase, third-party gates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pytest
import torch
from torch import Tensor

from spectral_core import fft_backend, hookimpl
from spectral_core.plugins import HOST, Registrar
from spectral_layers import Gate, GateConfig, GateContext, LayerContext, Modulation, SpectralView
from spectral_layers.gates.base import SMOOTHING
from spectral_layers.minimum_phase import minimum_phase
from spectral_layers.mixers.spectral_gating import SpectralGating, SpectralGatingConfig
from spectral_layers.testing import GATE_CHECKS, MIXER_CHECKS, gate_cases, mixer_cases, pairs, spectral_view

FFT = fft_backend("torch")
HEADS = {"heads": 2, "head_dim": 4}


class ConstantConfig(GateConfig):
    type: str = "constant"
    gain: float | None = None
    phase: float | None = None


class Constant(Gate[ConstantConfig]):
    """One gain, one phase for all bins."""

    def forward(self, view: SpectralView) -> Modulation:
        wanted = (self.config.gain, self.config.phase)
        gain, phase = (None if v is None else view.real.new_full((1, 1, 1, 1), v) for v in wanted)
        return Modulation(gain, phase, metrics={} if gain is None else {"gain": gain.mean()})


class NotchConfig(GateConfig):
    """A third party's gate."""

    type: Literal["acme/notch"] = "acme/notch"
    width: float = 0.1


class Notch(Gate[NotchConfig]):
    """Removes the surroundings of one learned frequency per head."""

    def setup(self, config: NotchConfig, context: GateContext) -> None:
        self.centre = torch.nn.Parameter(torch.full((context.heads, 1, 1), 0.25))
        self.width = config.width

    def forward(self, view: SpectralView) -> Modulation:
        return Modulation(gain=1 - 0.9 * torch.exp(-(((view.frequency - self.centre) / self.width) ** 2)))


class Plugin:
    SPECTRAL_PLUGIN_API = 1

    @hookimpl
    def spectral_register_layers(self, register: Registrar) -> None:
        register("gate", "acme/notch", NotchConfig, summary="Removes one band.")


@pytest.fixture
def _acme() -> Iterator[None]:
    HOST.register(Plugin(), namespace="acme")
    yield
    HOST.unregister("acme")


@pytest.mark.usefixtures("_acme")
def test_a_plugin_s_gate_is_checked_by_itself_and_in_every_mixer_that_takes_gates() -> None:
    assert [str(case) for case in gate_cases("acme/*")] == ["acme/notch"]
    mixed = mixer_cases("acme/*")
    names = {str(case) for case in mixed}
    assert names >= {"spectral_gating-acme/notch-bidirectional", "spectral_gating-acme/notch-causal"}
    for check, case in pairs(GATE_CHECKS, gate_cases("acme/*")):
        check(case)
    for check, mixer in pairs(MIXER_CHECKS, mixed):
        check(mixer)
    config = SpectralGatingConfig.parse({"gates": [{"type": "acme/notch", "width": 0.2}]})
    assert config.model_dump()["gates"] == ({"type": "acme/notch", "width": 0.2},)


def smooth_gains(window: int) -> dict[str, Tensor]:
    frequency = torch.arange(window // 2 + 1, dtype=torch.float64) / window
    return {
        "low-pass": torch.sigmoid((0.15 - frequency) * 40),
        "tilt": torch.exp(-3 * frequency),
        "notch": 1 - 0.9 * torch.exp(-(((frequency - 0.25) / 0.05) ** 2)),
    }


@pytest.mark.parametrize(("window", "allowed"), [(16, 0.08), (64, 0.01)])
@pytest.mark.parametrize("name", ["low-pass", "tilt", "notch"])
def test_minimum_phase_keeps_a_smooth_gain_and_truncated_zero_phase_does_not(
    name: str, window: int, allowed: float
) -> None:
    gain = smooth_gains(window)[name]
    # Between the bins too: a kernel right on its own grid only would be right by aliasing.
    dense = torch.nn.functional.interpolate(gain[None, None], size=4 * window + 1, mode="linear", align_corners=True)[
        0, 0
    ]
    realised = torch.fft.rfft(minimum_phase(gain, window, FFT), 8 * window).abs()
    assert ((realised - dense).norm() / dense.norm()).item() < allowed
    zero_phase = torch.fft.irfft(gain.to(torch.complex128), window)
    zero_phase[window // 2 + 1 :] = 0  # what lies at negative times is cut
    cut = torch.fft.rfft(zero_phase, 8 * window).abs()
    assert ((cut - dense).norm() / dense.norm()).item() > 0.14


def test_minimum_phase_of_a_flat_gain_is_an_impulse() -> None:
    taps = minimum_phase(torch.full((3, 9), 1.7, dtype=torch.float64), 16, FFT)
    expected = torch.zeros(3, 16, dtype=torch.float64)
    expected[:, 0] = 1.7
    torch.testing.assert_close(taps, expected)


def test_minimum_phase_survives_a_gain_of_zero() -> None:
    gain = torch.zeros(9, dtype=torch.float64, requires_grad=True)
    taps = minimum_phase(gain, 16, FFT)
    taps.sum().backward()
    assert taps.abs().max() < 1e-3
    assert gain.grad is not None
    assert gain.grad.isfinite().all()


def test_gradcheck_of_minimum_phase() -> None:
    gain = (torch.rand(2, 5, dtype=torch.float64) + 0.5).requires_grad_()
    phase = torch.rand(2, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda gain, phase: minimum_phase(gain, 8, FFT, phase=phase), (gain, phase))


def mixer_with(gate: Gate, *, causal: bool) -> SpectralGating:
    torch.manual_seed(0)
    mixer = SpectralGating(LayerContext(8, causal, FFT), head_dim=4, block=4, window=8)
    mixer.gates[0] = gate
    return mixer.double()


@pytest.mark.parametrize("causal", [True, False])
def test_a_flat_gain_scales_the_signal(causal: bool) -> None:
    # One value for all bins, heads, channels and samples is a legal answer.
    x = torch.randn(2, 13, 8, dtype=torch.float64)
    mixer, quiet = (
        mixer_with(Constant(**HEADS, gain=2.5), causal=causal),
        mixer_with(Constant(**HEADS, gain=1.0), causal=causal),
    )
    with torch.no_grad():
        mixer.skip.fill_(0.0)
        quiet.skip.fill_(0.0)
        torch.testing.assert_close(mixer(x).y, 2.5 * quiet(x).y, rtol=1e-9, atol=1e-12)


def test_a_phase_alone_is_legal_in_both_directions() -> None:
    x = torch.randn(2, 13, 8, dtype=torch.float64)
    for causal in (True, False):
        assert mixer_with(Constant(**HEADS, phase=0.3), causal=causal)(x).y.isfinite().all()
    # In an encoder a phase turns bins exactly: by pi, all but the real ends change sign.
    with torch.no_grad():
        plain, turned = (mixer_with(Constant(**HEADS, phase=angle), causal=False) for angle in (0.0, torch.pi))
        for mixer in (plain, turned):
            mixer.skip.fill_(0.0)
        torch.testing.assert_close(turned(x).y, -plain(x).y)


def test_gates_compose() -> None:
    both = Modulation(gain=torch.tensor(2.0), losses={"a": torch.tensor(1.0)}).then(
        Modulation(gain=torch.tensor(3.0), phase=torch.tensor(0.5), metrics={"b": torch.tensor(2.0)})
    )
    assert (both.gain, both.phase) == (torch.tensor(6.0), torch.tensor(0.5))
    assert (set(both.losses), set(both.metrics)) == ({"a"}, {"b"})
    turned = Modulation(phase=torch.tensor(0.25)).then(both)
    assert turned.phase == torch.tensor(0.75)
    assert Modulation().then(Modulation()).gain is None


@pytest.mark.parametrize("causal", [True, False])
def test_two_gates_of_one_kind_keep_both_losses(causal: bool) -> None:
    class Costly(Constant):
        def forward(self, view: SpectralView) -> Modulation:
            answer = super().forward(view)
            return Modulation(answer.gain, losses={"cost": answer.gain.mean()})

    mixer = mixer_with(Costly(**HEADS, gain=2.0), causal=causal)
    mixer.gates.append(Costly(**HEADS, gain=3.0))
    losses = mixer(torch.randn(2, 13, 8, dtype=torch.float64)).losses
    assert {name: loss.item() for name, loss in losses.items()} == {"gates.0.cost": 2.0, "gates.1.cost": 3.0}


def test_metrics_of_rows_are_weighted_by_rows() -> None:
    class Length(Constant):
        def forward(self, view: SpectralView) -> Modulation:
            return Modulation(gain=torch.ones(1), metrics={"bins": view.frequency.new_tensor(view.frequency.numel())})

    from spectral_layers import Rows

    mixer = mixer_with(Length(**HEADS), causal=False)
    output = mixer(torch.randn(4, 10, 8, dtype=torch.float64), rows=Rows(torch.tensor([10, 10, 10, 2])))
    assert output.metrics["gates.0.bins"].item() == pytest.approx((3 * 6 + 2) / 4)


def test_a_view_is_orthonormal_and_smooth_at_zero() -> None:
    x = torch.randn(1, 1, 1, 64, dtype=torch.float64)
    view = spectral_view(x)
    power = view.real.square() + view.imag.square()
    assert (2 * power.sum() - power[..., 0] - power[..., -1]).item() == pytest.approx(x.square().sum().item())
    torch.testing.assert_close(view.magnitude, power.sqrt(), rtol=1e-3, atol=SMOOTHING)
    loud = spectral_view(100 * x)
    torch.testing.assert_close(loud.phase, torch.atan2(loud.imag, loud.real), rtol=1e-6, atol=1e-6)
    silent = spectral_view(torch.zeros_like(x))
    assert torch.equal(silent.magnitude, torch.full_like(silent.magnitude, SMOOTHING))
    assert torch.equal(silent.relative_magnitude, torch.ones_like(silent.magnitude))
    for field in (silent.phase, *silent.phasor):
        assert not field.any()


def test_gradients_of_the_smoothed_phase_are_bounded_at_every_scale() -> None:
    for exponent in range(-40, 3):
        real, imag = (torch.full((1, 1, 1, 1), v * 10.0**exponent, requires_grad=True) for v in (-1.0, 1.0))
        view = SpectralView(real, imag, torch.zeros(1))
        view.phase.sum().backward()
        for gradient in (real.grad, imag.grad):
            assert gradient is not None
            assert gradient.isfinite().all()
            assert gradient.abs().max() < 10 / SMOOTHING
