"""The conformance kit for layer parts, for us and for plugins' authors. Needs no test framework.

A plugin's author runs it on their own part, here a gate, and on every mixer with it::

    import pytest
    from spectral_layers.testing import GATE_CHECKS, MIXER_CHECKS, gate_cases, mixer_cases, pairs

    @pytest.mark.parametrize(
        ("check", "case"),
        [*pairs(GATE_CHECKS, gate_cases("acme/*")), *pairs(MIXER_CHECKS, mixer_cases("acme/*"))],
        ids=str,
    )
    def test_conformance(check, case):
        check(case)

A part with options of its own: ``check(MixerCase(AcmeConfig(order=2), causal=True))``.
"""

from spectral_layers.testing import (
    batches,
    building,
    causality,
    feedforwards,
    filters,
    frontends,
    fusion_states,
    fusions,
    gates,
    operators,
    outputs,
    positions,
    sparsities,
    streaming,
    weights,
)
from spectral_layers.testing.cases import (
    FeedForwardCase,
    FilterCase,
    FrontEndCase,
    FusionCase,
    GateCase,
    MixerCase,
    PositionCase,
    SparsityCase,
)
from spectral_layers.testing.check import Check, checks_in, pairs
from spectral_layers.testing.gates import spectral_view
from spectral_layers.testing.registered import (
    feedforward_cases,
    filter_cases,
    frontend_cases,
    fusion_cases,
    gate_cases,
    mixer_cases,
    position_cases,
    sparsity_cases,
)

_PART_CHECKS = checks_in(building, weights)
"""What any part promises."""
MIXER_CHECKS: tuple[Check[MixerCase], ...] = (
    *_PART_CHECKS,
    *checks_in(causality, outputs, batches, streaming),
    operators.check_it_transforms_through_its_backend,
)
FILTER_CHECKS: tuple[Check[FilterCase], ...] = (
    *_PART_CHECKS,
    *checks_in(filters),
    operators.check_it_transforms_through_its_backend,
)
GATE_CHECKS: tuple[Check[GateCase], ...] = (*_PART_CHECKS, *checks_in(gates))
SPARSITY_CHECKS: tuple[Check[SparsityCase], ...] = (
    *_PART_CHECKS,
    *(check for check in checks_in(gates) if check is not gates.check_gain_is_not_negative),
    *checks_in(sparsities),
)
FUSION_CHECKS: tuple[Check[FusionCase], ...] = (
    *_PART_CHECKS,
    *checks_in(fusions, fusion_states, streaming),
    operators.check_it_transforms_through_its_backend,
)
FEEDFORWARD_CHECKS: tuple[Check[FeedForwardCase], ...] = (*_PART_CHECKS, *checks_in(feedforwards))
POSITION_CHECKS: tuple[Check[PositionCase], ...] = (*_PART_CHECKS, *checks_in(positions))
FRONTEND_CHECKS: tuple[Check[FrontEndCase], ...] = (*_PART_CHECKS, *checks_in(frontends))

__all__ = [
    "FEEDFORWARD_CHECKS",
    "FILTER_CHECKS",
    "FRONTEND_CHECKS",
    "FUSION_CHECKS",
    "GATE_CHECKS",
    "MIXER_CHECKS",
    "POSITION_CHECKS",
    "SPARSITY_CHECKS",
    "Check",
    "FeedForwardCase",
    "FilterCase",
    "FrontEndCase",
    "FusionCase",
    "GateCase",
    "MixerCase",
    "PositionCase",
    "SparsityCase",
    "feedforward_cases",
    "filter_cases",
    "frontend_cases",
    "fusion_cases",
    "gate_cases",
    "mixer_cases",
    "pairs",
    "position_cases",
    "sparsity_cases",
    "spectral_view",
]
