"""The plugin hook of this package."""

from __future__ import annotations

from spectral_core.plugins import Registrar, hookspec


@hookspec
def spectral_register_layers(register: Registrar) -> None:
    """Register layer parts: ``register(kind, "acme/name", "acme.gates:Config", summary="...")``.

    kind: ``mixer``, ``filter``, ``gate``, ``sparsity``, ``fusion``, ``feedforward``, ``position`` or ``frontend``. The
    config derives from that kind's base in :mod:`spectral_layers` and its ``build(context)`` returns the module. Check
    it with :mod:`spectral_layers.testing`.
    """
