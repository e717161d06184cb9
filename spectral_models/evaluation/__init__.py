"""Measures of models: bits per byte of text, and that of a compressor for comparison."""

from spectral_models.evaluation.bits import bits_per_byte, xz_bits_per_byte

__all__ = ["bits_per_byte", "xz_bits_per_byte"]
