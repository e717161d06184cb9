"""Plots of readings; only this package needs matplotlib."""
