"""The hook of this package. Layers and models declare theirs in their own ``hookspecs.py``."""

from __future__ import annotations

from spectral_core.plugins import Registrar, hookspec


@hookspec
def spectral_register_fft_backends(register: Registrar) -> None:
    """Register FFT backends: ``register("fft", "acme/name", "acme.fft:Config", summary="...")``.

    The config derives from :class:`spectral_core.FFTBackendConfig` and its ``build()`` returns an
    :class:`spectral_core.FFTBackend`. Check it with :mod:`spectral_core.testing`.
    """
