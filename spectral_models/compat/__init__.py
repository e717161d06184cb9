"""Names of the project that Spectral Networks follows, with their arguments, on the parts of this one.

``docs/compat.md`` says what each field becomes and what differs.
"""

from spectral_models.compat.config import LayerType, ModalityType, SpectralConfig
from spectral_models.compat.models import (
    SpectralAudioEncoder,
    SpectralClassifier,
    SpectralCrossModalFusion,
    SpectralEncoder,
    SpectralLanguageModel,
    SpectralSeq2Seq,
    SpectralVisionEncoder,
    create_spectral_classifier,
    create_spectral_lm,
)
from spectral_models.compat.spectra import (
    AdaptiveFrequencySelector,
    AdvancedSpectralGating,
    HierarchicalFFT,
    OptimizedFFT,
)

__all__ = [
    "AdaptiveFrequencySelector",
    "AdvancedSpectralGating",
    "HierarchicalFFT",
    "LayerType",
    "ModalityType",
    "OptimizedFFT",
    "SpectralAudioEncoder",
    "SpectralClassifier",
    "SpectralConfig",
    "SpectralCrossModalFusion",
    "SpectralEncoder",
    "SpectralLanguageModel",
    "SpectralSeq2Seq",
    "SpectralVisionEncoder",
    "create_spectral_classifier",
    "create_spectral_lm",
]
