"""Positions, one a file, each with its config."""
