"""What users and plugins' authors may import: a name added or lost here is a decision, not an accident."""

from __future__ import annotations

import subprocess
import sys

import spectral_layers
from spectral_layers import testing


def test_the_package() -> None:
    assert spectral_layers.__all__ == [
        "FEEDFORWARDS", "FILTERS", "FRONTENDS", "FUSIONS", "GATES", "MIXERS", "POSITIONS", "SPARSITIES",
        "FeedForward", "FeedForwardConfig", "FeedForwardOutput", "Filter", "FilterConfig", "FilterContext",
        "FrontEnd", "FrontEndConfig", "FrontEndOutput", "Fusion", "FusionConfig", "FusionOutput", "Gate",
        "GateConfig", "GateContext", "LayerContext", "Mixer", "MixerConfig", "MixerOutput", "Modulation", "Position",
        "PositionConfig", "RecurrentFilter", "Report", "Rotation", "Rows", "Sparsity", "SparsityConfig", "SpectralView",
        "State", "Stream", "fixed_weights",
    ]  # fmt: skip
    assert all(hasattr(spectral_layers, name) for name in spectral_layers.__all__)


def test_the_kit() -> None:
    assert testing.__all__ == [
        "FEEDFORWARD_CHECKS", "FILTER_CHECKS", "FRONTEND_CHECKS", "FUSION_CHECKS", "GATE_CHECKS", "MIXER_CHECKS",
        "POSITION_CHECKS", "SPARSITY_CHECKS",
        "Check",
        "FeedForwardCase", "FilterCase", "FrontEndCase", "FusionCase", "GateCase", "MixerCase", "PositionCase",
        "SparsityCase",
        "feedforward_cases", "filter_cases", "frontend_cases", "fusion_cases", "gate_cases", "mixer_cases",
        "pairs", "position_cases", "sparsity_cases", "spectral_view",
    ]  # fmt: skip
    assert all(hasattr(testing, name) for name in testing.__all__)


def test_the_kit_needs_no_test_framework() -> None:
    # A plugin's author may run it under any framework, or none.
    script = (
        "import sys, spectral_layers.testing; sys.exit(any(name in sys.modules for name in ('pytest', 'hypothesis')))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
    imported = script.replace("import sys,", "import sys, hypothesis,")
    assert subprocess.run([sys.executable, "-c", imported], check=False).returncode == 1, "the proof above can fail"
