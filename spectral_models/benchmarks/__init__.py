"""Benchmarks behind ``spectral bench``: accuracy first, then paired times, then a report."""
