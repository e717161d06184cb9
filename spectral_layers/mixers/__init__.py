"""Mixing parts, one a file, each with its config."""
