"""Generation through the decoding state."""

from spectral_models.generation.generate import generate
from spectral_models.generation.prefill import prefill

__all__ = ["generate", "prefill"]
