"""Configs of ``resonance_nn`` (Spectral Neural Networks v3), as configs and models of Spectral Networks.

The README says what each field becomes, and what replaces the names that are not here.
"""

from spectral_compat.config import (
    LayerType,
    ModalityType,
    SpectralConfig,
    create_spectral_classifier,
    create_spectral_lm,
)

__all__ = ["LayerType", "ModalityType", "SpectralConfig", "create_spectral_classifier", "create_spectral_lm"]

REMOVED = {
    "SpectralLanguageModel": 'build_model(config.translate("language_model")); logits are model(input_ids).logits',
    "SpectralEncoder": 'build_model(config.translate("encoder")); features are model(inputs).hidden',
    "SpectralVisionEncoder": 'build_model(config.translate("encoder")) with modality="vision"',
    "SpectralAudioEncoder": 'build_model(config.translate("encoder")) with modality="audio"',
    "SpectralClassifier": 'build_model(config.translate("classifier", num_labels=N)); logits are model(inputs).logits',
    "SpectralSeq2Seq": 'build_model(config.translate("seq2seq")); logits are model(source, target).logits',
    "SpectralCrossModalFusion": 'the fusion "cross_modal" of a multimodal model',
    "HierarchicalFFT": 'fft_backend("hierarchical", chunk_size=...), with rfft and irfft',
    "OptimizedFFT": 'fft_backend("auto"), with rfft and irfft',
    "AdvancedSpectralGating": 'the gate "advanced" of the mixer spectral_gating',
    "AdaptiveFrequencySelector": 'the sparsity "adaptive" of the mixer spectral_gating',
}
"""Names of the original that this package does not have, and what to write instead."""


def __getattr__(name: str) -> object:
    if name in REMOVED:
        raise ImportError(f"spectral_compat has no {name}; use {REMOVED[name]}. See the README of spectral-compat.")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
