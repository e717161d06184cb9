"""Models of DNA for Spectral Networks: the variant ``dna/strand`` and the task ``dna/counts``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spectral_core import hookimpl

if TYPE_CHECKING:
    from spectral_core.plugins import Registrar

SPECTRAL_PLUGIN_API = 1


@hookimpl
def spectral_register_models(register: Registrar) -> None:
    register(
        "model",
        "dna/strand",
        "spectral_dna.strand:StrandConfig",
        summary="Classes or counts of DNA sequences, the same for a strand and its reverse complement.",
    )
    register("task", "dna/counts", "spectral_dna.counts:CountsConfig", summary="Counts of DNA sequences; Poisson loss.")
