"""Sparsities, one per file, each with its config."""
