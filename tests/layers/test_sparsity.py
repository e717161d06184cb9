"""Which bins pass, what the mixer makes of the choice, and what it reports."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from spectral_core import fft_backend
from spectral_layers import (
    Gate,
    GateConfig,
    GateContext,
    LayerContext,
    Modulation,
    Rows,
    Sparsity,
    SparsityConfig,
    SpectralView,
)
from spectral_layers.minimum_phase import attainable, minimum_phase
from spectral_layers.mixers.spectral_gating import SpectralGating
from spectral_layers.sparsity.adaptive import Adaptive, AdaptiveConfig
from spectral_layers.sparsity.base import bin_energy
from spectral_layers.sparsity.energy import Energy, EnergyConfig
from spectral_layers.sparsity.fixed import Fixed, FixedConfig
from spectral_layers.sparsity.top_k import top_k
from spectral_layers.testing import spectral_view

FFT = fft_backend("torch")
CONTEXT = GateContext(heads=2, head_dim=4)


def signals(n: int, batch: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(batch, 2, 4, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def kept(sparsity: Sparsity, x: Tensor) -> Tensor:
    gain = sparsity.double()(spectral_view(x)).gain
    assert gain is not None
    return gain[:, :, 0].detach()


@pytest.mark.parametrize("config", [FixedConfig(), AdaptiveConfig(), FixedConfig(share=0.5), AdaptiveConfig(share=1.0)])
@pytest.mark.parametrize("n", [1, 2, 7, 8, 63, 64, 1000])
@pytest.mark.parametrize("training", [True, False])
def test_a_share_of_the_bins_is_that_many_in_every_head(
    config: FixedConfig | AdaptiveConfig, n: int, training: bool
) -> None:
    bins = n // 2 + 1
    expected = max(1, int(config.share * bins + 0.5))
    counts = kept(config.build(CONTEXT).train(training), signals(n)).sum(-1)
    assert (counts == expected).all()


def test_the_default_share_is_what_was_asked_for() -> None:
    for n in (64, 1000, 1001):
        share = kept(FixedConfig().build(CONTEXT), signals(n)).mean().item()
        assert 0.10 <= share <= 0.15


def test_fixed_begins_as_a_low_pass_and_knows_nothing_of_the_input() -> None:
    sparsity = FixedConfig().build(CONTEXT).eval()
    chosen = kept(sparsity, signals(64))
    assert chosen[0, 0].nonzero().flatten().tolist() == [0, 1, 2, 3]
    torch.nn.init.normal_(sparsity.importance)
    first, second = kept(sparsity, signals(64)), kept(sparsity, 100 * signals(64, seed=1))
    assert torch.equal(first, second)
    assert torch.equal(first, first[:1].expand_as(first))
    assert not torch.equal(first[:, 0], first[:, 1]), "heads choose for themselves"


def test_adaptive_begins_with_the_strongest_bins() -> None:
    x = signals(64)
    view = spectral_view(x)
    power = (view.real.square() + view.imag.square()).sum(2)
    chosen = kept(AdaptiveConfig().build(CONTEXT).eval(), x)
    assert (power.masked_fill(chosen == 0, torch.inf).amin(-1) > (power * (1 - chosen)).amax(-1)).all()


@pytest.mark.parametrize("config", [FixedConfig(), AdaptiveConfig()], ids=lambda config: config.type)
def test_training_draws_and_more_often_what_scores_higher(config: FixedConfig | AdaptiveConfig) -> None:
    sparsity = config.build(CONTEXT)
    x = signals(64)
    with torch.no_grad():
        for parameter in sparsity.parameters():
            parameter.mul_(0.5)
    draws = torch.stack([kept(sparsity.train(), x) for _ in range(300)]).mean(0)
    best = kept(sparsity.eval(), x).bool()
    assert 0.02 < draws[~best].mean() < 0.8 * draws[best].mean()
    assert draws[best].min() < 1
    if config.type == "fixed":
        assert torch.equal(draws, draws[:1].expand_as(draws)), "one set for the batch"
    else:
        assert (draws[0] != draws[1]).any()


def test_adaptive_sees_the_shape_of_a_spectrum_and_not_its_level() -> None:
    sparsity = AdaptiveConfig().build(CONTEXT).eval()
    torch.nn.init.normal_(sparsity.weight)
    assert torch.equal(kept(sparsity, signals(64)), kept(sparsity, 50 * signals(64)))
    assert not torch.equal(kept(sparsity, signals(64)), kept(sparsity, signals(64, seed=1)))


@pytest.mark.parametrize("share", [0.5, 0.95, 0.999])
@pytest.mark.parametrize("n", [1, 2, 9, 16])
def test_energy_keeps_the_smallest_set_that_holds_the_share(share: float, n: int) -> None:
    x = signals(n)
    energy = bin_energy(spectral_view(x))
    torch.testing.assert_close(energy.sum(-1), x.square().sum((2, 3)), rtol=1e-4, atol=1e-4)  # smoothed by (1e-3)^2
    chosen = kept(EnergyConfig(share=share).build(CONTEXT), x).bool()
    subsets = torch.cartesian_prod(*[torch.tensor([False, True])] * (n // 2 + 1)).reshape(-1, n // 2 + 1)
    held = energy @ subsets.T.to(energy.dtype)  # of every subset of the bins
    sizes = torch.where(held >= share * energy.sum(-1, keepdim=True), subsets.sum(-1), n).amin(-1)
    assert torch.equal(chosen.sum(-1), sizes)
    assert ((energy * chosen).sum(-1) >= share * energy.sum(-1)).all()


def test_energy_keeps_one_bin_of_a_tone_and_most_of_silence() -> None:
    time = torch.arange(64, dtype=torch.float64)
    tone = torch.sin(2 * torch.pi * 5 / 64 * time).expand(1, 2, 4, 64)
    chosen = kept(Energy(CONTEXT), tone)
    assert chosen.nonzero()[:, -1].tolist() == [5, 5]
    assert kept(Energy(CONTEXT), 0 * tone).sum(-1).tolist() == [[31, 31]]


def test_the_gradient_of_top_k_is_that_of_its_soft_stand_in() -> None:
    scores = torch.tensor([[0.3, 2.0, 1.0, -1.0]], dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=torch.float64)
    (top_k(scores, 0.5, temperature=0.7, draw=False) @ weights).sum().backward()
    again = scores.detach().requires_grad_()
    (torch.sigmoid((again - (again[:, 2:3] + again[:, :1]) / 2) / 0.7) @ weights).sum().backward()
    torch.testing.assert_close(scores.grad, again.grad)
    assert scores.grad.sum().abs() < 1e-12, "raising all scores alike changes nothing"


class FlatConfig(GateConfig):
    type: str = "flat"
    gain: float | None = None


class Flat(Gate[FlatConfig]):
    """One gain for all bins, or none."""

    def forward(self, view: SpectralView) -> Modulation:
        gain = self.config.gain
        return Modulation(None if gain is None else view.real.new_full((1,), gain))


class Kill(Gate):
    """Silences all frequencies below a bound."""

    def forward(self, view: SpectralView) -> Modulation:
        return Modulation(gain=(view.frequency > 0.3).to(view.frequency.dtype).expand(1, 1, 1, -1))


class ChosenConfig(SparsityConfig):
    type: str = "chosen"
    bins: tuple[int, ...]


class Chosen(Sparsity[ChosenConfig]):
    """Keeps the bins it was told."""

    def forward(self, view: SpectralView) -> Modulation:
        gain = torch.zeros_like(view.frequency)
        gain[list(self.config.bins)] = 1.0
        return Modulation(gain=gain.expand(1, 1, 1, -1))


def mixer_with(
    sparsity: Sparsity | None, *, causal: bool, gate: Gate | None = None, block: int = 32, window: int = 64
) -> SpectralGating:
    torch.manual_seed(0)
    mixer = SpectralGating(
        LayerContext(8, causal, FFT),
        sparsity=None if sparsity is None else "energy",
        head_dim=4,
        block=block,
        window=window,
    )
    mixer.gates[0], mixer.sparsity = gate or Flat(CONTEXT), sparsity
    mixer.double()
    with torch.no_grad():
        mixer.skip.fill_(0.0)
    return mixer.eval()


def test_an_encoder_drops_bins_to_zero() -> None:
    x = torch.randn(2, 60, 8, dtype=torch.float64)
    mixer = mixer_with(FixedConfig().build(CONTEXT), causal=False)
    value = mixer.in_proj(x).transpose(1, 2).chunk(2, 1)[1]
    y, modulation = mixer._bidirectional(value, None)
    spectrum = torch.fft.rfft(y).abs()
    assert spectrum[..., 4:].max() < 1e-12
    assert spectrum[..., :4].mean() > 0.01
    assert modulation.metrics["sparsity.kept_share"].item() == pytest.approx(4 / 31)


def test_a_row_s_own_length_decides_its_bins() -> None:
    x = torch.randn(2, 60, 8, dtype=torch.float64)
    mixer = mixer_with(EnergyConfig().build(CONTEXT), causal=False)
    alone = mixer(x[1:, :25])
    both = mixer(x, rows=Rows(torch.tensor([60, 25])))
    torch.testing.assert_close(both.y[1:, :25], alone.y)


@pytest.mark.parametrize("causal", [True, False])
def test_the_sparsity_sees_the_spectrum_as_gates_leave_it(causal: bool) -> None:
    mixer = mixer_with(Adaptive(CONTEXT, bands=4), causal=causal, gate=Kill(CONTEXT))
    x = torch.randn(2, 128, 8, dtype=torch.float64)
    response = mixer.response(100 * x)
    chosen = response.wished[:, -1] > 0
    assert chosen.any()
    assert not chosen[..., response.bins <= 0.3].any()


CHOICES = {"lowest": (0, 1, 2, 3), "band": (12, 13, 14, 15), "alone": (2, 9, 17, 26)}


@pytest.mark.parametrize(
    ("name", "outside", "worst"), [("lowest", 0.02, 0.97), ("band", 0.03, 0.97), ("alone", 0.1, 0.9)]
)
def test_what_a_decoder_realises_keeps_to_the_band(name: str, outside: float, worst: float) -> None:
    mixer = mixer_with(Chosen(CONTEXT, bins=CHOICES[name]), causal=True)
    x = torch.randn(1, 160, 8, dtype=torch.float64)
    response = mixer.response(x)
    assert mixer(x).metrics["sparsity.out_of_band"] < outside
    assert response.realised[..., [4 * i for i in CHOICES[name]]].min() > worst
    # The same choice by the two usual ways, which the bounds must tell apart.
    gain = response.wished[0, 0, 0]
    dense = torch.arange(129) / 4
    near = (dense[:, None] - torch.tensor(CHOICES[name])).abs().amin(-1) < 0.5

    def left_over(kernel: Tensor) -> float:
        power = torch.fft.rfft(kernel, 256).abs().square()
        return (power[~near].sum() / power.sum()).item()

    cut = torch.fft.irfft(gain.to(torch.complex128), 64)
    cut[33:] = 0
    assert left_over(cut) > 0.25
    stepped = minimum_phase(gain, 128, FFT)
    assert left_over(stepped) > outside or torch.fft.rfft(stepped, 64).abs()[list(CHOICES[name])].min() < 0.75


def test_what_is_attainable_is_realised() -> None:
    generator = torch.Generator().manual_seed(0)
    gain = torch.stack([torch.rand(33, generator=generator).double() > 0.85 for _ in range(20)]).double()
    asked = attainable(1.3 * gain, 128, FFT)
    made = torch.fft.rfft(minimum_phase(asked, 128, FFT), 512).abs()
    assert ((made - asked).norm() / asked.norm()).item() < 5e-3
    # A kernel on a finer grid has the same response between the points: nothing is right by aliasing only.
    finer = torch.fft.rfft(minimum_phase(asked, 128, FFT), 2048).abs()
    assert (finer[:, ::4] - made).abs().max() < 1e-12
    assert finer.max() < 1.3 * 1.25


def test_gradcheck_of_what_is_attainable() -> None:
    gain = torch.rand(2, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda gain: minimum_phase(attainable(gain, 16, FFT), 16, FFT), gain)


def test_reported_is_the_response_of_the_kernel_and_not_the_wish() -> None:
    x = torch.randn(2, 70, 8, dtype=torch.float64)
    mixer = mixer_with(Chosen(CONTEXT, bins=(9,)), causal=True, gate=Flat(CONTEXT, gain=1.5))
    response, metrics = mixer.response(x), mixer(x).metrics
    assert response.wished.shape == (2, 3, 2, 33)
    assert response.realised.shape == (2, 3, 2, 129)
    torch.testing.assert_close(response.frequency[::4], response.bins)
    assert response.wished[..., 9].eq(1.5).all()
    assert response.wished.sum(-1).eq(1.5).all()
    # An impulse at the start of a block meets that block's kernel: the response is the transform of what comes out.
    segments = torch.zeros(1, 8, 128 + 128, dtype=torch.float64)
    mixer.block = 128
    segments[..., 128] = 1.0
    _, _, kernel = mixer._design(segments)
    out = torch.fft.irfft(torch.fft.rfft(mixer._per_channel(kernel, 1), 256) * torch.fft.rfft(segments), 256)[..., 128:]
    torch.testing.assert_close(torch.fft.rfft(out, 256).abs()[0, 0], response.realised[0, 0, 0])
    power = torch.fft.rfft(out, 64 * 1024).abs()[0, 0].square()
    nearest = torch.arange(power.shape[-1]) / 1024
    inside = ((nearest - 9).abs() < 0.5) + 0.5 * ((nearest - 9).abs() == 0.5)
    outside = 1 - ((power * inside).sum() / power.sum()).item()
    assert outside > 0.05, "a lone bin is not had for nothing"
    assert metrics["sparsity.out_of_band"].item() == pytest.approx(outside, rel=1e-4)
    assert metrics["sparsity.kept_share"].item() == pytest.approx(1 / 33)


def test_a_decoder_reports_the_energy_that_passes() -> None:
    time = torch.arange(96, dtype=torch.float64)
    mixer = mixer_with(Chosen(CONTEXT, bins=(8, 9, 10)), causal=True, gate=Flat(CONTEXT, gain=1.5))
    tones = torch.stack([torch.sin(2 * torch.pi * k / 64 * time) for k in (9, 20)])
    value = 100 * tones[:, None].expand(2, 8, 96)
    inputs, _, blocks = mixer._with_past(value, None)
    segments = mixer._segments(inputs, slice(0, blocks))
    passing, stopped = (mixer._design(segments[row, 2:])[0].metrics["sparsity.kept_energy"] for row in (0, 1))
    assert passing.item() == pytest.approx(1.0, abs=0.05)
    assert stopped.item() < 1e-4
    # Before its first token a row is silent, and what passes of silence is a share of bins, not everything.
    silent = mixer._design(segments[0, :1])[0].metrics["sparsity.kept_energy"].item()
    assert silent == pytest.approx(6 / 64, abs=0.01)


def test_without_a_sparsity_nothing_is_reported_and_the_kernel_is_as_it_was() -> None:
    mixer = mixer_with(None, causal=True, gate=Flat(CONTEXT, gain=1.5))
    assert mixer.taps == mixer.window
    x = torch.randn(2, 70, 8, dtype=torch.float64)
    assert not mixer(x).metrics
    torch.testing.assert_close(mixer.response(x).realised, torch.full((2, 3, 2, 129), 1.5, dtype=torch.float64))


def test_keeping_everything_is_keeping_the_gates() -> None:
    x = torch.randn(2, 100, 8, dtype=torch.float64)
    for causal in (True, False):
        plain, sparse = (mixer_with(part, causal=causal) for part in (None, Chosen(CONTEXT, bins=tuple(range(33)))))
        if not causal:
            sparse.sparsity = Chosen(CONTEXT, bins=tuple(range(51)))
        torch.testing.assert_close(sparse(x).y, plain(x).y, rtol=1e-4, atol=1e-8)
    assert mixer_with(Chosen(CONTEXT, bins=tuple(range(33))), causal=True)(x).metrics["sparsity.out_of_band"] == 0


@pytest.mark.parametrize(("part", "causal"), [("fixed", True), ("fixed", False), ("adaptive", True)])
def test_a_sparsity_learns_which_frequencies_matter(part: str, causal: bool) -> None:
    # A tone at 0.36 cycles a token in louder noise below 0.25. The tone is wanted, and its phase does not matter.
    generator = torch.Generator().manual_seed(0)
    turns = 2 * torch.pi * 0.36 * torch.arange(128)
    noise = torch.fft.rfft(torch.randn(8, 2, 128, generator=generator))
    noise[..., 32:] = 0
    tone = torch.cos(turns + 2 * torch.pi * torch.rand(8, 1, 1, generator=generator))
    x = (tone + 3 * torch.fft.irfft(noise, 128)).repeat_interleave(4, 1)
    kind, steps, rate = {"fixed": (Fixed, 100, 0.1), "adaptive": (Adaptive, 30, 0.2)}[part]
    mixer = mixer_with(kind(CONTEXT, bands=8), causal=causal).float()
    optimiser = torch.optim.Adam(mixer.sparsity.parameters(), rate)

    def loss() -> Tensor:
        y, *_ = mixer._causal(x, None, None) if causal else mixer._bidirectional(x, None)
        late = y[..., 96:]
        return late.square().mean() - 8 * (late * torch.exp(1j * turns[96:])).mean(-1).abs().square().mean()

    assert loss() > 0, "it begins with the noise"
    mixer.train()
    for _ in range(steps):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
    mixer.eval()
    assert loss() < -1.2, "and ends with the tone, whose loss alone is -1.5"
