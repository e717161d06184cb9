"""Honest numbers: bits per byte, what a compressor needs for the same bytes, and accuracy."""

from spectral_models.evaluation.accuracy import Judgement, judge_classifier
from spectral_models.evaluation.bits import bits_per_byte, xz_bits_per_byte

__all__ = ["Judgement", "bits_per_byte", "judge_classifier", "xz_bits_per_byte"]
