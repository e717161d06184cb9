"""A gate for Spectral Networks that shrinks the weak bins of a spectrum: ``shrinkage/soft_threshold``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spectral_core import hookimpl

if TYPE_CHECKING:
    from spectral_core.plugins import Registrar

SPECTRAL_PLUGIN_API = 1


@hookimpl
def spectral_register_layers(register: Registrar) -> None:
    register(
        "gate",
        "shrinkage/soft_threshold",
        "spectral_shrinkage.gates:SoftThresholdConfig",
        summary="Shrinks magnitudes below a learned threshold; phases pass unchanged.",
    )
