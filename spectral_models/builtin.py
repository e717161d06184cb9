"""Our own model variants, registered through the hook third parties use."""

from __future__ import annotations

from spectral_core.plugins import Registrar, hookimpl


@hookimpl
def spectral_register_models(register: Registrar) -> None:
    register(
        "model",
        "language_model",
        "spectral_models.variants.language_model:LanguageModelConfig",
        summary="Strictly causal language model: next-token logits, streaming state, generation.",
    )
