"""An FFT backend for Spectral Networks that transforms with ducc0 on the CPU: ``ducc/ducc0``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spectral_core import hookimpl

if TYPE_CHECKING:
    from spectral_core.plugins import Registrar

SPECTRAL_PLUGIN_API = 1


@hookimpl
def spectral_register_fft_backends(register: Registrar) -> None:
    register(
        "fft",
        "ducc/ducc0",
        "spectral_ducc.backend:DuccFFTConfig",
        summary="ducc0 on the CPU, in cache-sized blocks of channels.",
    )
