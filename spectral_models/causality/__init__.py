"""The causality check of decoders with third-party parts: what it does and what it cannot see."""

from spectral_models.causality import cases, check, subject
from spectral_models.causality.check import OUT_OF_REACH, check_causality
from spectral_models.causality.subject import is_decoder, is_foreign

__all__ = ["OUT_OF_REACH", "check_causality", "is_decoder", "is_foreign"]

GUARDED = (cases, check, check._Check, subject, subject.Subject)
"""What no plugin may replace (:meth:`spectral_core.plugins.PluginHost.guard`)."""
