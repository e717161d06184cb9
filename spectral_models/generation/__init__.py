"""Generation through the decoding state."""

from spectral_models.generation.generate import generate

__all__ = ["generate"]
