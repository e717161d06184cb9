"""Honest numbers: bits per byte, and what a compressor needs for the same bytes."""

from spectral_models.evaluation.bits import bits_per_byte, xz_bits_per_byte

__all__ = ["bits_per_byte", "xz_bits_per_byte"]
