"""Every registered part keeps every promise; one that is added is tested for free."""

from __future__ import annotations

import pytest
import torch

from spectral_layers import FEEDFORWARDS, FILTERS, FRONTENDS, FUSIONS, GATES, MIXERS, POSITIONS, SPARSITIES, MixerConfig
from spectral_layers.filters.resonant import ResonantConfig
from spectral_layers.mixers.fourier import FourierConfig
from spectral_layers.mixers.gated_convolution import GatedConvolutionConfig
from spectral_layers.mixers.holographic import HolographicConfig
from spectral_layers.mixers.spectral_gating import SpectralGatingConfig
from spectral_layers.testing import (
    FEEDFORWARD_CHECKS,
    FILTER_CHECKS,
    FRONTEND_CHECKS,
    FUSION_CHECKS,
    GATE_CHECKS,
    MIXER_CHECKS,
    POSITION_CHECKS,
    SPARSITY_CHECKS,
    Check,
    FeedForwardCase,
    FilterCase,
    FrontEndCase,
    FusionCase,
    GateCase,
    MixerCase,
    PositionCase,
    SparsityCase,
    feedforward_cases,
    filter_cases,
    frontend_cases,
    fusion_cases,
    gate_cases,
    mixer_cases,
    pairs,
    position_cases,
    sparsity_cases,
)
from spectral_layers.testing.filters import check_float32_recurrence_keeps_up

# Blocks that do not divide windows, and a single token a block: where block arithmetic slips.
ODD_BLOCKS = [
    MixerCase(
        SpectralGatingConfig(gates=("band", "magnitude"), block=5, window=14, head_dim=8), hidden_dim=16, block=5
    ),
    MixerCase(SpectralGatingConfig(block=1, window=2, head_dim=8), hidden_dim=16, block=1),
    MixerCase(SpectralGatingConfig(sparsity="adaptive", block=5, window=14, head_dim=8), hidden_dim=16, block=5),
]

MEMORIES = [
    MixerCase(HolographicConfig(decay="per_token", update=update, head_dim=8, phases=8), hidden_dim=16)
    for update in ("additive", "delta")
]


@pytest.mark.parametrize(("check", "case"), pairs(MIXER_CHECKS, [*mixer_cases(), *ODD_BLOCKS, *MEMORIES]), ids=str)
def test_mixer(check: Check[MixerCase], case: MixerCase) -> None:
    check(case)


@pytest.mark.parametrize(("check", "case"), pairs(FILTER_CHECKS, filter_cases()), ids=str)
def test_filter(check: Check[FilterCase], case: FilterCase) -> None:
    check(case)


@pytest.mark.parametrize(("check", "case"), pairs(GATE_CHECKS, gate_cases()), ids=str)
def test_gate(check: Check[GateCase], case: GateCase) -> None:
    check(case)


@pytest.mark.parametrize(("check", "case"), pairs(SPARSITY_CHECKS, sparsity_cases()), ids=str)
def test_sparsity(check: Check[SparsityCase], case: SparsityCase) -> None:
    check(case)


@pytest.mark.parametrize(("check", "case"), pairs(FUSION_CHECKS, fusion_cases()), ids=str)
def test_fusion(check: Check[FusionCase], case: FusionCase) -> None:
    check(case)


@pytest.mark.parametrize(("check", "case"), pairs(FEEDFORWARD_CHECKS, feedforward_cases()), ids=str)
def test_feedforward(check: Check[FeedForwardCase], case: FeedForwardCase) -> None:
    check(case)


@pytest.mark.parametrize(("check", "case"), pairs(POSITION_CHECKS, position_cases()), ids=str)
def test_position(check: Check[PositionCase], case: PositionCase) -> None:
    check(case)


@pytest.mark.parametrize(("check", "case"), pairs(FRONTEND_CHECKS, frontend_cases()), ids=str)
def test_frontend(check: Check[FrontEndCase], case: FrontEndCase) -> None:
    check(case)


@pytest.mark.parametrize(
    ("length", "channels", "modes"), [(2_000, 8, 16), (16_000, 4, 16), (200_000, 2, 4)], ids=lambda value: f"{value}"
)
def test_resonant_decoding_keeps_up_when_modes_last_as_long_as_the_sequence(
    length: int, channels: int, modes: int
) -> None:
    # Short time constants forget the rounding of phases; tau near L is where float32 recurrences part.
    config = ResonantConfig(modes=modes, timescales=(length / 2, 2.0 * length))
    check_float32_recurrence_keeps_up(FilterCase(config, channels=channels, length=length))


@pytest.mark.parametrize("fft", ["torch", "hierarchical"])
@pytest.mark.parametrize("config", [GatedConvolutionConfig(), SpectralGatingConfig()], ids=lambda config: config.type)
def test_mixers_give_the_same_numbers_on_every_backend(config: MixerConfig, fft: str) -> None:
    x = torch.randn(2, 150, 64, dtype=torch.float64)
    expected = MixerCase(config).build()(x).y
    torch.testing.assert_close(MixerCase(config, fft=fft).build()(x).y, expected, rtol=1e-11, atol=1e-11)


def test_every_registered_part_is_in_some_case() -> None:
    mixed = {word for case in mixer_cases() for word in str(case).split("-")}
    assert mixed >= {*MIXERS.names(), *FILTERS.names(), *GATES.names(), *SPARSITIES.names(), "causal", "bidirectional"}
    assert [str(case) for case in filter_cases()] == FILTERS.names()
    assert [str(case) for case in gate_cases()] == GATES.names()
    assert [str(case) for case in sparsity_cases()] == SPARSITIES.names()
    assert {case.config.type for case in fusion_cases()} == set(FUSIONS.names())
    assert [str(case) for case in feedforward_cases()] == FEEDFORWARDS.names()
    assert [str(case) for case in position_cases()] == POSITIONS.names()
    assert [str(case) for case in frontend_cases()] == FRONTENDS.names()


def test_every_check_is_for_some_case() -> None:
    # No built-in keeps packed documents apart, and every causal one streams; test_kit_can_fail.py runs these two.
    used = {check.__name__ for check, _ in pairs(MIXER_CHECKS, mixer_cases())}
    assert {check.__name__ for check in MIXER_CHECKS} - used == {
        "check_packed_documents_stay_apart",
        "check_no_token_sees_the_next",
    }
    assert {check for check, _ in pairs(FILTER_CHECKS, filter_cases())} == set(FILTER_CHECKS)
    assert {check for check, _ in pairs(FUSION_CHECKS, fusion_cases())} == set(FUSION_CHECKS)
    assert {check for check, _ in pairs(FEEDFORWARD_CHECKS, feedforward_cases())} == set(FEEDFORWARD_CHECKS)
    assert {check for check, _ in pairs(POSITION_CHECKS, position_cases())} == set(POSITION_CHECKS)
    assert {check for check, _ in pairs(FRONTEND_CHECKS, frontend_cases())} == set(FRONTEND_CHECKS)


def test_a_pattern_that_matches_nothing_is_an_error() -> None:
    token_mixing = (mixer_cases, filter_cases, gate_cases, sparsity_cases, fusion_cases)
    for cases in (*token_mixing, feedforward_cases, position_cases, frontend_cases):
        with pytest.raises(ValueError, match="no registered part matches 'acme/\\*'"):
            cases("acme/*")


def test_a_check_refuses_a_case_it_is_not_for() -> None:
    case = MixerCase(FourierConfig(), causal=False)
    with pytest.raises(ValueError, match="check_no_output_sees_a_later_token is not for fourier-bidirectional"):
        next(check for check in MIXER_CHECKS if check.__name__ == "check_no_output_sees_a_later_token")(case)


def test_cases_are_randomised_and_repeat_themselves() -> None:
    case = MixerCase(HolographicConfig())
    state = torch.random.get_rng_state()
    first, second = case.build(), case.build()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert all(parameter.any() for parameter in first.parameters()), "a parameter left at zero hides what it does"
    assert torch.equal(torch.random.get_rng_state(), state), "the caller's random numbers are not the kit's to draw"
