"""The promises of a gate, and those of a mixer with this gate in it, by the framework's public checks."""

from __future__ import annotations

from spectral_layers.testing import Check, GateCase, MixerCase


def test_conformance(check: Check[GateCase | MixerCase], case: GateCase | MixerCase) -> None:
    check(case)
