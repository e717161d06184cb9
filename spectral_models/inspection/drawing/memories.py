"""Plots of poles of recurrent filters, and of memories of mixers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from spectral_models.inspection.drawing.axes import log_frequency
from spectral_models.inspection.drawing.layout import Grid
from spectral_models.inspection.readings import MemoryReading, PoleReading

_SIZES = (0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999)
"""Of |z|, marked on the axis of time constants."""


def draw_poles(readings: Sequence[PoleReading]) -> Figure:
    """Poles z in the unit circle, and by frequency and time constant, which spreads out the rim of the circle."""
    grid = Grid(len(readings), (3.2, 6.0), height=3.1, title="Poles of recurrent filters")
    strongest = max(1e-12, *(float(reading.strength.max()) for reading in readings))
    norm = LogNorm(1e-2 * strongest, strongest, clip=True)
    slowest = max(float(reading.time_constant.max()) for reading in readings)
    fastest = min(float(reading.time_constant.min()) for reading in readings)
    # Slower oscillations fade before they can be distinguished from a constant.
    lowest = min(0.01, 1 / (2 * math.pi * slowest))
    turn = torch.linspace(0, 2 * math.pi, 400)
    rim_of_circle = turn.cos().numpy(), turn.sin().numpy()
    for row, reading in enumerate(readings):
        circle, rim = grid[row, 0], grid[row, 1]
        order = reading.strength.flatten().argsort()  # the strongest on top
        how: dict[str, Any] = {
            "c": reading.strength.flatten()[order].numpy(),
            "norm": norm,
            "cmap": "viridis",
            "linewidths": 0,
        }
        z = reading.z.flatten()[order].numpy()
        circle.plot(*rim_of_circle, color="0.4", linewidth=0.8)
        circle.scatter(z.real, z.imag, s=5, **how)
        circle.scatter(z.real, -z.imag, s=5, alpha=0.3, **how)
        circle.axhline(0, color="0.8", linewidth=0.6, zorder=0)
        circle.axvline(0, color="0.8", linewidth=0.6, zorder=0)
        circle.set(aspect="equal", xlim=(-1.08, 1.08), ylim=(-1.08, 1.08), ylabel="imaginary part of z")
        circle.set_xticks([-1, 0, 1])
        circle.set_yticks([-1, 0, 1])
        if grid.is_last(row):
            circle.set_xlabel("real part of z")
        frequency = reading.frequency.flatten()[order].clamp(min=lowest).log10().numpy()
        shown = rim.scatter(frequency, reading.time_constant.flatten()[order].numpy(), s=9, **how)
        rim.set(yscale="log", ylim=(fastest / 1.5, slowest * 1.5), ylabel="time constant (tokens)")
        rim.grid(alpha=0.3)
        rim.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        log_frequency(rim, lowest, top=grid.is_first(row), bottom=grid.is_last(row))
        sizes = rim.secondary_yaxis("right")
        sizes.set_yticks([-reading.spacing / math.log(size) for size in _SIZES], [f"{size:g}" for size in _SIZES])
        sizes.yaxis.set_minor_locator(NullLocator())
        sizes.set_ylabel("|z|")
        grid.name(row, reading.place, f"steps of {reading.spacing} tokens" if reading.spacing > 1 else "")
    bar = grid.scale(1, shown, "strength of the mode in its kernel")
    bar.ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    return grid.figure


def draw_memories(readings: Sequence[MemoryReading]) -> Figure:
    """Time constants in ascending order; with bandwidths, each head by both."""
    grid = Grid(len(readings), (7.0,), height=2.2, title="Memories of mixers")
    slowest = max(float(reading.time_constant.max()) for reading in readings)
    fastest = min(float(reading.time_constant.min()) for reading in readings)
    for row, reading in enumerate(readings):
        panel, tau = grid[row, 0], reading.time_constant
        if reading.bandwidth is None:
            share = torch.linspace(0, 100, len(tau))
            panel.plot(tau.sort().values.tolist(), share.tolist(), color="tab:blue")
            panel.set(ylabel="channels (%)", ylim=(-3, 103))
        else:
            panel.scatter(tau.tolist(), reading.bandwidth.tolist(), s=28, color="tab:blue")
            for head, point in enumerate(zip(tau.tolist(), reading.bandwidth.tolist(), strict=True)):
                panel.annotate(f"{head}", point, textcoords="offset points", xytext=(5, 3), fontsize=8)
            panel.set_ylabel("bandwidth (rad)")
            panel.set_title("numbers: heads", loc="right", fontsize=8)
        panel.set(xscale="log", xlim=(fastest / 1.5, slowest * 1.5))
        panel.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        panel.grid(alpha=0.3)
        if grid.is_last(row):
            panel.set_xlabel("time constant (tokens)")
        grid.name(row, reading.place)
    return grid.figure
