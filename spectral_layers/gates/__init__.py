"""Gating parts, one a file, each with its config."""
