"""The causality check of decoders with third-party parts."""

from spectral_models.causality import cases, check, subject
from spectral_models.causality.check import OUT_OF_REACH, check_causality
from spectral_models.causality.subject import is_decoder, is_foreign

__all__ = ["OUT_OF_REACH", "check_causality", "is_decoder", "is_foreign"]

GUARDED = (cases, check, check._Check, subject, subject.Subject)
"""Modules and classes whose attributes no plugin may replace (:class:`spectral_core.guard.Guard`)."""
