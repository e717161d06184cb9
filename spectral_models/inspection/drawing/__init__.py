"""Readings as pictures; the only part of an inspection that needs matplotlib."""
